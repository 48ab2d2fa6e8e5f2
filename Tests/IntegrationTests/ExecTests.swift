import Foundation
import MonitorTesting
import Testing

@testable import Windhover

extension SlowTiers {
    /// Commands of `hover exec` on the software CPU: input, output and exit status, files, users, devices.
    @Suite(.serialized) struct ExecTests {
        /// Directory, environment, arguments, both outputs and the exit status are as if it ran here, but what it writes goes nowhere.
        @Test func aCommandRunsAsIfItRanHere() async throws {
            let scratch = try ExecScratch()
            try scratch.write("from the host", to: "here")
            let script = """
                for word; do printf '[%s]' "$word"; done; echo
                pwd; echo "$COLOUR"; cat here; echo; id -u; stat -c %u here
                echo changed > here && echo new > new && cat here new
                echo "to the other" >&2
                exit 7
                """
            let arguments = ["", "two words", "a\nline", "it's \"quoted\" $HOME \\", "*", "-x", "é"]
            let result = try await Exec.run(
                [], ["sh", "-c", script, "sh"] + arguments, in: scratch.path, environment: ["COLOUR": "a dark  blue"])
            #expect(result.status == 7, "\(result.summary)")
            #expect(
                result.output == arguments.map { "[\($0)]" }.joined()
                    + "\n\(scratch.path)\na dark  blue\nfrom the host\n0\n0\nchanged\nnew\n", "\(result.summary)")
            #expect(result.error == "to the other\n", "\(result.summary)")
            #expect(scratch.text("here") == "from the host" && !scratch.has("new"))
        }

        /// What is no text arrives as it is: an argument, what is inherited, what `--env` gives.
        @Test func wordsThatAreNoText() async throws {
            let script = "printf '%s\\n' \"$INHERITED\" \"$GIVEN\" \"$ALSO\" \"$@\" | od -An -v -tx1"
            let result = try await Exec.around(
                "export INHERITED=$'\\xff\\xc3'; \"${@:1:2}\" --env $'GIVEN=\\xfd' $'--env=ALSO=\\xfc' \"${@:3}\" $'a\\xfe' $'\\x80'",
                [], ["sh", "-c", script, "sh"])
            let bytes = result.output.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            #expect(result.status == 0 && bytes == "ff c3 0a fd 0a fc 0a 61 fe 0a 80 0a", "\(result.summary)")
        }

        /// Megabytes of every byte, in by one pipe and out by another.
        @Test func whatGoesThroughItIsTheSame() async throws {
            let data = (0..<(4 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 167 ^ $0 >> 9) }
            let scratch = try ExecScratch()
            try Data(data).write(to: URL(fileURLWithPath: scratch.file("in")))
            let result = try await Exec.around(
                "cat in | \"$@\" | cat > out; echo ${PIPESTATUS[1]}", [], ["sh", "-c", "cat; exit 255"], in: scratch.path)
            #expect(result.output == "255\n" && result.error.isEmpty, "\(result.summary)")
            let out = FileManager.default.contents(atPath: scratch.file("out")).map { [UInt8]($0) }
            #expect(difference(of: out ?? [], from: data) == nil, "\(out?.count ?? -1) bytes came out: \(result.summary)")
        }

        /// What reads no input, and what nobody reads the output of.
        @Test func streamsThatAreClosed() async throws {
            let closed = try await Exec.around("\"$@\" <&-", [], ["sh", "-c", "cat; echo end"])
            #expect(closed.status == 0 && closed.output == "end\n", "\(closed.summary)")
            let early = try await Exec.around("\"$@\" | head -n 2; echo ${PIPESTATUS[0]}", [], ["yes"])
            #expect(early.output == "y\ny\n141\n" && early.error.isEmpty, "\(early.summary)")
        }

        /// What the host could not take, or give, is told, and no success.
        @Test(arguments: [
            ("> /dev/full", [], "the command's output: write: No space left on device"), ("2> /dev/full >&2", [], ""),
            ("< /", [], "the command's input: read: Is a directory"), ("", ["--console-log", "/dev/full"], "some of the console is missing in '/dev/full': No space"),
        ] as [(String, [String], String)])
        func whatTheHostLosesIsTold(redirection: String, options: [String], words: String) async throws {
            let result = try await Exec.around("\"$@\" \(redirection); echo $?", options, ["sh", "-c", "echo lost; cat"])
            // The console is hover's own, and the command's files are whole.
            #expect(result.output.hasSuffix(options.isEmpty ? "70\n" : "0\n"), "\(result.summary)")
            #expect(words.isEmpty || result.error.contains(words), "\(result.summary)")
        }

        /// Without a person a terminal's input ends, too: nobody waits for ever.
        @Test func aTerminalWithoutAPerson() async throws {
            for (input, count) in [("", 0), ("half", 4), ("whole\n", 6)] {
                let result = try await Exec.run(["--tty", "always"], ["sh", "-c", "stty -echo; test -t 0 && echo; cat | wc -c"], input: Array(input.utf8))
                #expect(result.status == 0 && ExpectedOutput.lines(of: result.output).last == "\(count)", "\(input): \(result.summary)")
            }
        }

        @Test func aSignalOfItsOwnEndsACommand() async throws {
            let result = try await Exec.run([], ["sh", "-c", "kill -SEGV $$"])
            #expect(result.status == 139 && result.error.contains("SIGSEGV"), "\(result.summary)")
        }

        // MARK: Roots, users, files

        /// A tree of busybox, without the directories that a system has: the user is looked up there.
        @Test func aRootOfItsOwn() async throws {
            let scratch = try ExecScratch()
            let root = try scratch.busyboxRoot("root", programs: ["sh", "id", "stat", "cat"])
            let script = """
                id -u; id -g; id -G; echo $HOME $USER $COLOUR; pwd; stat -c %u:%g /bin/busybox; cat /proc/sys/kernel/hostname
                echo x > /dev/null && echo y >&2
                """
            let result = try await Exec.run(
                ["--root", root, "--user", "tester", "--workdir", "/work", "--env", "COLOUR=blue", "--env", "PATH=/bin", "--env", "HOME=/no"],
                ["sh", "-c", script])
            #expect(result.status == 0 && result.error == "y\n", "\(result.summary)")
            let owner = "\(getuid()):\(getgid())"
            #expect(
                result.output == "1234\n1235\n1235 2001 2003\n/home/tester tester blue\n/work\n\(owner)\nwindhover\n"
                    || result.output == "1234\n1235\n2001 2003 1235\n/home/tester tester blue\n/work\n\(owner)\nwindhover\n",
                "\(result.summary)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: root).sorted() == ["bin", "etc", "work"])
        }

        /// No shell is needed, but by what is a shell's.
        @Test func aRootWithoutAShell() async throws {
            let scratch = try ExecScratch()
            let root = try scratch.busyboxRoot("root", programs: ["echo"])
            try scratch.write("echo never", to: "root/script", mode: 0o755)
            let program = try await Exec.run(["--root", root], ["/bin/echo", "without a shell"])
            #expect(program.status == 0 && program.output == "without a shell\n", "\(program.summary)")
            let script = try await Exec.run(["--root", root], ["/script"])
            #expect(script.status == 126 && script.output.isEmpty && script.error.contains("/script"), "\(script.summary)")
            let shell = try await Exec.run(["--root", root], ["/bin/sh", "-c", "true"])
            #expect(shell.status == 127 && shell.error.contains("/bin/sh"), "\(shell.summary)")
        }

        /// Writes stay where they are let: under --rw and --share, by the caller's own name. Elsewhere they are gone with the guest.
        @Test func writesStayWhereTheyAreLet() async throws {
            let scratch = try ExecScratch()
            let (work, shared, kept) = (try scratch.directory("work"), try scratch.directory("shared"), try scratch.directory("kept"))
            let script = """
                echo one > here; mkdir -p deep/er; echo two > deep/er/file; chmod 640 here; ln -s here link; mv deep/er/file deep/moved
                echo three > /mnt/other/there; echo four > ../outside; echo five > /etc/hover-test; cat ../outside /etc/hover-test
                echo six > /mnt/kept/no || echo refused; stat -c %u:%g here; head -c 3000000 /dev/zero | tr '\\0' x > big
                """
            let result = try await Exec.run(
                ["--rw", "--share", "\(shared):/mnt/other", "--share", "\(kept):/mnt/kept,readonly"], ["sh", "-c", script], in: work)
            #expect(result.status == 0 && result.output == "four\nfive\nrefused\n0:0\n", "\(result.summary)")
            #expect(result.error.contains("Read-only file system"), "\(result.summary)")
            #expect(scratch.text("work/here") == "one\n" && scratch.text("work/link") == "one\n" && scratch.text("work/deep/moved") == "two\n")
            #expect(scratch.text("work/big") == String(repeating: "x", count: 3_000_000))
            #expect(scratch.text("shared/there") == "three\n" && !scratch.has("outside") && !scratch.has("kept/no"))
            #expect(!FileManager.default.fileExists(atPath: "/etc/hover-test"))
            let facts = try FileManager.default.attributesOfItem(atPath: scratch.file("work/here"))
            #expect(facts[.posixPermissions] as? Int == 0o640 && facts[.ownerAccountID] as? UInt32 == getuid(), "\(facts)")
        }

        /// As somebody who is nobody in particular, with a kernel that is a file and its modules in a directory: what the caller may not
        /// read the guest's root may not either, and what it writes is the caller's. Modules that no driver of the machine's needs are there.
        @Test func whatTheCallerMayNotReadTheGuestMayNot() async throws {
            try Exec.needs("busybox", package: "busybox-static")
            try Exec.needs("setpriv", package: "util-linux")
            guard getuid() == 0 else { try Test.cancel("only root can be somebody else") }
            try await Exec.image()
            let scratch = try ExecScratch()
            let (work, boot) = (try scratch.directory("work"), try scratch.directory("boot"))
            try await unpackKernel(into: boot)
            try FileManager.default.copyItem(atPath: Hover.path, toPath: scratch.file("hover"))
            try scratch.write("secret", to: "secret", mode: 0o600)
            #expect(chown(work, 65534, 65534) == 0)
            let command = """
                shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_CACHE_HOME=/nowhere '\(scratch.path)/hover' "$@"
                """
            let result = try await Exec.around(
                command, ["--kernel", "\(boot)/vmlinuz", "--modules", boot, "--rw"],
                ["sh", "-c", "id -u; echo mine > file; stat -c %u file .; ls /lib/modules/*/virtio_balloon.ko | wc -l; cat ../secret /etc/shadow"],
                in: work)
            #expect(result.status == 1 && result.output == "0\n0\n0\n1\n", "\(result.summary)")
            #expect(result.error.components(separatedBy: "Permission denied").count == 3, "\(result.summary)")
            let facts = try FileManager.default.attributesOfItem(atPath: work + "/file")
            #expect(scratch.text("work/file") == "mine\n" && facts[.ownerAccountID] as? UInt32 == 65534, "\(facts)")
        }

        /// The image's kernel, and its modules as a directory has them.
        private func unpackKernel(into directory: String) async throws {
            let files = try #require(ImageStore().locate("linux"))
            let modules = try #require(files.modules)
            try FileManager.default.copyItem(atPath: files.kernel, toPath: directory + "/vmlinuz")
            let unpacked = try await ChildProcess.run(
                ["sh", "-c", "cd '\(directory)' && busybox cpio -id 2>/dev/null < '\(modules)' && chmod -R a+rX ."], deadline: 60)
            try #require(unpacked.status == 0, "\(unpacked.summary)")
        }

        /// A kernel without virtio-fs: which module, and where it was looked for. Where a list says what is built in, before anything
        /// is started; otherwise by the guest.
        @Test func aKernelWithoutVirtiofs() async throws {
            try Exec.needs("busybox", package: "busybox-static")
            try await Exec.image()
            let scratch = try ExecScratch()
            try await unpackKernel(into: scratch.path)
            let release = try #require(FileManager.default.contentsOfDirectory(atPath: scratch.file("lib/modules")).first)
            let directory = "lib/modules/\(release)"
            try FileManager.default.removeItem(atPath: scratch.file("\(directory)/virtiofs.ko"))
            for list in ["modules.dep", "modules.order", "modules.alias"] {
                let lines = try #require(scratch.text("\(directory)/\(list)")).split(separator: "\n").filter { !$0.contains("virtiofs") }
                try scratch.write(lines.joined(separator: "\n") + "\n", to: "\(directory)/\(list)")
            }
            let options = ["--kernel", scratch.file("vmlinuz"), "--modules", scratch.path]
            let inGuest = try await Exec.run(options, ["true"])
            #expect(inGuest.status == 65 && inGuest.error.contains("virtiofs"), "\(inGuest.summary)")
            try scratch.write("kernel/fs/ext4/ext4.ko\n", to: "\(directory)/modules.builtin")
            let onHost = try await Exec.run(options, ["true"])
            #expect(onHost.status == 65 && onHost.seconds < Exec.promptly, "\(onHost.summary)")
            for text in ["module virtiofs", scratch.file(directory)] {
                #expect(onHost.error.contains(text), "'\(text)' is missing: \(onHost.summary)")
            }
        }

        /// The kernel that the host has installed, with the modules beside it. What this host really has is hidden.
        @Test func theHostsOwnKernel() async throws {
            try Exec.needs("busybox", package: "busybox-static")
            guard getuid() == 0 else { try Test.cancel("only root can give the host another kernel") }
            try await Exec.image()
            let scratch = try ExecScratch()
            try await unpackKernel(into: scratch.path)
            let release = try #require(FileManager.default.contentsOfDirectory(atPath: scratch.file("lib/modules")).first)
            let hide = """
                set -e; mount --make-rprivate /
                for place in /boot /lib/modules /usr/lib/modules; do [ ! -d $place ] || mount -t tmpfs none $place; done
                """
            let probe = try await ChildProcess.run(["unshare", "-m", "sh", "-c", hide], deadline: 10)
            guard probe.status == 0 else { try Test.cancel("no mount namespace with a /boot of its own: \(probe.error)") }
            let install = "cp '\(scratch.path)/vmlinuz' /boot/vmlinuz-\(release); cp -r '\(scratch.path)/lib' /boot/lib"
            let script = "uname -r; ls /lib/modules/*/virtio_balloon.ko; ls -d /sys/bus/pci/drivers/virtio-pci"
            let result = try await ChildProcess.run(
                ["unshare", "-m", "sh", "-c", "\(hide)\n\(install); exec \"$@\"", "sh"] + Exec.words(["--kernel", "host"], ["sh", "-c", script]),
                deadline: Exec.deadline)
            #expect(
                result.status == 0
                    && result.output == "\(release)\n/lib/modules/\(release)/virtio_balloon.ko\n/sys/bus/pci/drivers/virtio-pci\n", "\(result.summary)")
        }

        /// A disk that is the root: what is written to it stays where that is let.
        @Test func aDiskThatIsTheRoot() async throws {
            try Exec.needs("mke2fs", package: "e2fsprogs")
            let scratch = try ExecScratch()
            let root = try scratch.busyboxRoot("root", programs: ["sh", "cat", "mount", "grep"])
            let disk = scratch.file("disk")
            let made = try await ChildProcess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, "32M"], deadline: 60)
            try #require(made.status == 0, "\(made.summary)")
            func holds(_ name: String) async throws -> String {
                let check = try await ChildProcess.run(["e2fsck", "-fn", disk], deadline: 60)
                #expect(check.status == 0, "\(check.summary)")
                return try await ChildProcess.run(["debugfs", "-R", "cat \(name)", disk], deadline: 60).output
            }
            let script = ["sh", "-c", "pwd; echo written > /work/file; cat /work/file; exit 3"]
            let vanishing = try await Exec.run(["--disk", disk, "--env", "PATH=/bin"], script)
            #expect(vanishing.status == 3 && vanishing.output == "/\nwritten\n", "\(vanishing.summary)")
            #expect(try await holds("/work/file").isEmpty)
            let staying = try await Exec.run(["--disk", disk, "--rw", "--env", "PATH=/bin"], script)
            #expect(staying.status == 3 && staying.output == "/\nwritten\n", "\(staying.summary)")
            #expect(try await holds("/work/file") == "written\n")
        }

        // MARK: The machine

        /// A network, processors, words for the kernel, and what the console and the numbers say; by each transport.
        @Test(arguments: ["pci", "mmio"]) func theMachineIsWhatWasAskedFor(transport: String) async throws {
            try Exec.needs("passt", package: "passt")
            try Exec.needs("perl", package: "perl")
            let (server, port) = try LocalSocket.listen()
            defer { close(server) }
            let data = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 11) }
            let sender = Task.detached {
                let peer = LocalSocket.accept(server)
                LocalSocket.send(data, to: peer)
                close(peer)
            }
            let scratch = try ExecScratch()
            // Of the host's own programs only those that each Debian has.
            let script = """
                nproc; grep -c 'a.word=1' /proc/cmdline; ls -d /sys/bus/\(transport == "pci" ? "pci" : "platform")/drivers/virtio-*
                gateway=$(perl -ane 'if ($F[1] eq "00000000") { print join(".", reverse map { hex } unpack("(A2)4", $F[2])); last }' /proc/net/route)
                exec bash -c "cat < /dev/tcp/$gateway/\(port)" | md5sum
                """
            let result = try await Exec.run(
                [
                    "--net", "user", "--cpus", "2", "--transport", transport, "--append", "a.word=1", "--append", "loglevel=7",
                    "--console-log", scratch.file("log"), "--stats", scratch.file("stats"), "--memory", "320M",
                ], ["sh", "-c", script])
            #expect(result.status == 0 && result.output.hasPrefix("2\n1\n/sys/bus/"), "\(result.summary)")
            try Data(data).write(to: URL(fileURLWithPath: scratch.file("data")))
            let sum = try await ChildProcess.run(["md5sum", scratch.file("data")], deadline: 60)
            #expect(result.output.contains(String(sum.output.prefix(32))), "what came: \(result.summary)")
            if result.status != 0 { shutdown(server, Int32(SHUT_RDWR)) }
            await sender.value
            let log = try #require(scratch.text("log"))
            #expect(log.contains("Linux version") && log.contains("virtio"), "\(log.prefix(500))")
            let numbers = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: scratch.file("stats"))))
            let stats = try #require(numbers as? [String: Any])
            #expect(stats["engine"] as? String == "interpreter" && stats["outcome"] as? String == "exited" && stats["exitStatus"] as? Int == 0)
            let times = ["secondsToReady", "secondsToStart", "wallSeconds"].compactMap { stats[$0] as? Double }
            #expect(times.count == 3 && times == times.sorted() && times[0] > 0 && times[2] <= result.seconds, "\(stats)")
            #expect(stats["instructions"] as? Int ?? 0 > 10_000_000, "\(stats)")
            let kinds = (stats["devices"] as? [[String: Any]] ?? []).compactMap { $0["kind"] as? String }
            #expect(kinds.count >= 3, "\(stats)")
        }

        /// A TAP interface, in a network of the test's own whose server gives the guest its address: bytes go both ways, and with the guest
        /// the interface goes.
        @Test func aTapInterface() async throws {
            try Exec.needs("busybox", package: "busybox-static")
            let isolated = try await ChildProcess.run(["unshare", "-n", "/bin/test", "-c", "/dev/net/tun"], deadline: 10)
            guard isolated.status == 0 else {
                try Test.cancel("no network namespace, or no /dev/net/tun, for a TAP interface of the test's own: \(isolated.error)")
            }
            try await Exec.image()
            let scratch = try ExecScratch()
            try scratch.write(
                """
                start 10.9.0.20
                end 10.9.0.20
                interface t0
                lease_file \(scratch.file("leases"))
                pidfile \(scratch.file("pid"))
                option subnet 255.255.255.0
                option router 10.9.0.1
                option dns 10.9.0.1

                """, to: "udhcpd.conf")
            let guest = """
                busybox ip -4 addr show scope global | grep -o 'inet [0-9./]*'; grep nameserver /etc/resolv.conf
                busybox wget -q -O /run/data http://10.9.0.1:7000/data; md5sum < /run/data; busybox nc 10.9.0.1 7001 < /run/data
                """
            let around = """
                cd '\(scratch.path)'; head -c 20000000 /dev/urandom > data; : > leases
                "$@" & pid=$!
                for i in $(seq 1 100); do busybox ip link show t0 > /dev/null 2>&1 && break; sleep 0.1; done
                busybox ip addr add 10.9.0.1/24 dev t0; busybox ip link set t0 up
                busybox udhcpd -f udhcpd.conf > /dev/null 2>&1 & server=$!
                busybox httpd -f -p 7000 -h . & files=$!
                tail -f /dev/null | busybox nc -l -p 7001 > up &
                wait $pid; status=$?; kill $server $files; md5sum < data; cmp data up && echo 'the same'
                busybox ip link show t0 > /dev/null 2>&1 && echo 'it is still there'; exit $status
                """
            let result = try await ChildProcess.run(
                ["unshare", "-n", "bash", "-c", around, "bash"] + Exec.words(["--net", "tap:t0"], ["sh", "-c", guest]), deadline: Exec.deadline)
            #expect(result.status == 0 && result.error.isEmpty, "\(result.summary)")
            let lines = ExpectedOutput.lines(of: result.output)
            try #require(lines.count == 5, "\(result.summary)")
            #expect(lines[0] == "inet 10.9.0.20/24" && lines[1] == "nameserver 10.9.0.1", "\(result.summary)")
            #expect(lines[2] == lines[3] && lines[4] == "the same", "\(result.summary)")
        }

        // MARK: Terminal and signals

        /// The command's terminal has the caller's size, now and later; Ctrl-C is the command's; `~.` leaves.
        @Test func aTerminal() async throws {
            try await Exec.image()
            let script = """
                trap 'stty size' WINCH; trap 'echo interrupted' INT
                test -t 0 && test -t 1 && stty size; echo ready
                while read -r line || [ $? -gt 128 ]; do [ "$line" = end ] && break; [ -n "$line" ] && echo "got <$line>"; line=; done; exit 5
                """
            let child = try TerminalChild(Exec.words([], ["bash", "-c", script]), rows: 31, columns: 97)
            try #require(child.expect("31 97", within: Exec.deadline) && child.expect("ready", within: 30), "\(child.text)")
            child.type("some words\r")
            #expect(child.expect("got <some words>", within: 30), "\(child.text)")
            child.resize(rows: 40, columns: 120)
            // A shell that waits for a line runs a trap when it has one, and the first may be there before the new size.
            var isResized = false
            for _ in 0..<10 where !isResized {
                child.type("\r")
                isResized = child.expect("40 120", within: 3)
            }
            #expect(isResized, "\(child.text)")
            child.type("\u{3}")
            #expect(child.expect("interrupted", within: 30), "\(child.text)")
            // A line begins behind a line's end.
            child.type("\r~~ is one\r")
            #expect(child.expect("got <~ is one>", within: 30), "\(child.text)")
            #expect(!child.isCooked)
            child.type("end\r")
            #expect(child.end(within: 60) == 5, "\(child.text)")
            #expect(child.isCooked)

            let other = try TerminalChild(Exec.words([], ["sh", "-c", "trap '' INT; echo ready; sleep 1000"]), rows: 24, columns: 80)
            try #require(other.expect("ready", within: Exec.deadline), "\(other.text)")
            other.type("\u{3}\r~?")
            #expect(other.expect("leave", within: 30), "\(other.text)")
            other.type("\r~.")
            #expect(other.end(within: 15) == 130, "\(other.text)")
            #expect(other.isCooked)
        }

        /// What the output is piped into shows it on the same terminal, and ends its lines as ever.
        @Test func aTerminalThatOthersPrintTo() async throws {
            try await Exec.image()
            let child = try TerminalChild(
                ["bash", "-c", "\"$@\" | cat; echo end", "bash"] + Exec.words([], ["sh", "-c", "printf 'one\\ntwo\\n'; sleep 2"]), rows: 24, columns: 80)
            #expect(child.expect("one\r\ntwo\r\n", within: Exec.deadline), "\(child.text)")
            #expect(child.end(within: 60) == 0 && child.text.hasSuffix("end\r\n"), "\(child.text)")
            #expect(child.isCooked)
        }

        /// A first signal is the command's, which may make of it what it likes; a second ends the machine, and one before there is a command, too.
        @Test func signals() async throws {
            let scratch = try ExecScratch()
            let around = """
                env --default-signal=INT "$@" > out & pid=$!
                for i in $(seq 1 2800); do grep -q ready out && break; sleep 0.1; done
                kill -TERM $pid; [ "$SECOND" ] && { sleep 1; kill -0 $pid && echo lives; kill -TERM $pid; }
                begin=$(date +%s%N); wait $pid; echo "status $? after $((($(date +%s%N) - begin) / 1000000))"; cat out
                """
            let taken = try await Exec.around(
                around, [], ["bash", "-c", "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.1; done"], in: scratch.path)
            #expect(taken.output.contains("status 3 ") && taken.output.contains("told"), "\(taken.summary)")
            let ignored = try await Exec.around(
                "SECOND=1; \(around)", [], ["sh", "-c", "trap '' TERM; echo ready; sleep 1000"], in: scratch.path)
            #expect(ignored.output.contains("lives\n") && ignored.output.contains("status 143 "), "\(ignored.summary)")
            let early = try await Exec.around(
                """
                env --default-signal=INT "$@" & pid=$!; sleep 0.7; kill -INT $pid
                begin=$(date +%s%N); wait $pid; echo "status $? after $((($(date +%s%N) - begin) / 1000000))"
                """, ["--append", "rootdelay=1000 rdinit=/nosuch"], ["true"])
            #expect(early.output.hasPrefix("status 130 "), "\(early.summary)")
            for result in [ignored, early] {
                let line = ExpectedOutput.lines(of: result.output).first { $0.hasPrefix("status") }
                let milliseconds = line.flatMap { Double($0.split(separator: " ").last ?? "") } ?? .infinity
                #expect(milliseconds < 1000 * Exec.promptly, "\(result.summary)")
            }
        }
    }
}
