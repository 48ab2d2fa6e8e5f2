import Foundation
import MonitorTesting
import Testing

@testable import Windhover

extension SlowTiers {
    /// Disks, networks and sockets of a guest on the software CPU, by the drivers of Debian's kernel.
    @Suite(.serialized) struct SoftwareVirtioTests {
        private static let transports = ["mmio", "pci"]

        /// A directory for one test, removed at its end.
        private final class Scratch {
            let path = NSTemporaryDirectory() + "hover-virtio-\(UUID().uuidString.prefix(8))"
            init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
            deinit { try? FileManager.default.removeItem(atPath: path) }
            func file(_ name: String) -> String { path + "/" + name }
        }

        private func needs(_ program: String, package: String) throws {
            for directory in ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
            where FileManager.default.isExecutableFile(atPath: "\(directory)/\(program)") { return }
            try Requirement.missing("interpreter", "there is no \(program): apt-get install \(package)")
        }

        /// A guest whose init runs a script and powers off.
        private func guest(_ options: [String], script: String, deadline: Double = 120) async throws -> ChildResult {
            _ = try ImageStore().fetch("linux")
            let encoded = Data(script.utf8).base64EncodedString()
            return try await Hover.run(
                ["linux", "--engine", "interpreter", "--memory", "256M", "--append", "windhover.exec=\(encoded)"] + options,
                deadline: deadline)
        }

        private func make(_ words: [String]) async throws {
            let made = try await ChildProcess.run([Hover.path, "images", "make", "small"] + words, deadline: 60)
            try #require(made.status == 0, "\(made.summary)")
        }

        /// Whether a file system is sound, and nothing had to be mended.
        private func expectClean(_ disk: String) async throws {
            let check = try await ChildProcess.run(["/sbin/e2fsck", "-fn", disk], deadline: 60)
            #expect(check.status == 0, "\(check.summary)")
        }

        /// From the disk to a system of its own, and back to a power-off that leaves a sound file system.
        @Test(arguments: transports) func aSystemStartsFromADisk(transport: String) async throws {
            try needs("mke2fs", package: "e2fsprogs")
            let scratch = try Scratch()
            let (disk, script) = (scratch.file("disk"), scratch.file("script"))
            try "echo started by $(cat /proc/1/comm) from $(df / | tail -n 1 | cut -d ' ' -f 1); dd if=/dev/urandom of=/kept bs=64k count=8 2>/dev/null; md5sum /kept"
                .write(toFile: script, atomically: false, encoding: .utf8)
            try await make(["--output", disk, "--script", script, "--size", "24M"])
            let result = try await Hover.run(
                ["linux", "--engine", "interpreter", "--memory", "256M", "--disk", disk, "--transport", transport], deadline: 120)
            #expect(result.status == 0, "\(result.summary)")
            #expect(result.output.contains("started by init from /dev/"), "\(result.summary)")
            try await expectClean(disk)
            // What the guest wrote is what the host has.
            let sum = result.output.split(whereSeparator: \.isWhitespace).last { $0.count == 32 && $0.allSatisfy(\.isHexDigit) }
            let dumped = try await ChildProcess.run(
                ["/bin/sh", "-c", "debugfs -R 'cat /kept' '\(disk)' 2>/dev/null | md5sum"], deadline: 60)
            #expect(sum.map { dumped.output.hasPrefix(String($0)) } == true, "\(result.summary)\n\(dumped.summary)")
        }

        /// Every byte of a disk written, read back past the page cache, and compared: by several processors at once.
        @Test(arguments: transports) func aDiskKeepsWhatIsWritten(transport: String) async throws {
            let scratch = try Scratch()
            let disk = scratch.file("disk")
            #expect(FileManager.default.createFile(atPath: disk, contents: nil))
            #expect(truncate(disk, 32 << 20) == 0)
            let script = """
                for part in 0 1 2 3; do
                    (dd if=/dev/urandom of=/run/part$part bs=1M count=8 2>/dev/null
                     dd if=/run/part$part of=/dev/vda bs=64k seek=$((part * 128)) conv=fsync 2>/dev/null) &
                done
                wait
                echo 3 > /proc/sys/vm/drop_caches
                for part in 0 1 2 3; do
                    dd if=/dev/vda bs=64k skip=$((part * 128)) count=128 2>/dev/null | cmp - /run/part$part && echo same $part
                done
                cat /run/part0 /run/part1 /run/part2 /run/part3 | md5sum
                blockdev --getsz /dev/vda; cat /sys/block/vda/serial; echo
                """
            let result = try await guest(
                ["--cpus", "2", "--disk", "\(disk),serial=W-1,queues=2", "--transport", transport], script: script)
            #expect(result.status == 0, "\(result.summary)")
            for text in ["same 0", "same 1", "same 2", "same 3", "65536", "W-1"] {
                #expect(result.output.contains(text), "'\(text)' is missing: \(result.summary)")
            }
            let host = try await ChildProcess.run(["md5sum", disk], deadline: 60)
            #expect(result.output.contains(String(host.output.prefix(32))), "\(result.summary)\n\(host.summary)")
        }

        /// A monitor that is killed loses nothing that the guest had flushed, and leaves a file system that its journal mends.
        @Test func aKilledMonitorLosesNothingFlushed() async throws {
            try needs("mke2fs", package: "e2fsprogs")
            let scratch = try Scratch()
            let (disk, script) = (scratch.file("disk"), scratch.file("script"))
            try "n=0; while true; do n=$((n + 1)); echo $n > /new; sync; mv /new /last; sync; echo flushed $n; done"
                .write(toFile: script, atomically: false, encoding: .utf8)
            try await make(["--output", disk, "--script", script])
            // The shell tells the monitor's number, and kills it in the midst of its work.
            let console = scratch.file("console")
            let command = """
                '\(Hover.path)' run linux --engine interpreter --memory 256M --disk '\(disk)' --console 'file:\(console)' & pid=$!
                for i in $(seq 1 600); do grep -q 'flushed 40' '\(console)' 2>/dev/null && break; sleep 0.1; done
                kill -9 $pid; wait $pid
                """
            _ = try await ChildProcess.run(["/bin/sh", "-c", command], deadline: 120)
            let said = try String(contentsOfFile: console, encoding: .utf8).split(whereSeparator: \.isNewline)
            let flushed = said.last { $0.hasPrefix("flushed ") }.flatMap { Int($0.dropFirst(8)) } ?? 0
            try #require(flushed >= 40, "\(said.suffix(5))")
            let mended = try await ChildProcess.run(["/sbin/e2fsck", "-fp", disk], deadline: 60)
            #expect(mended.status == 0 || mended.status == 1, "\(mended.summary)")
            try await expectClean(disk)
            let last = try await ChildProcess.run(["/bin/sh", "-c", "debugfs -R 'cat /last' '\(disk)' 2>/dev/null"], deadline: 30)
            let kept = Int(last.output.split(whereSeparator: \.isNewline).first ?? "") ?? 0
            #expect(kept >= flushed, "the guest had flushed \(flushed), the disk has \(last.output)")
        }

        @Test func aDiskIsLockedAndSoundAfterAReset() async throws {
            let scratch = try Scratch()
            let disk = scratch.file("disk")
            #expect(FileManager.default.createFile(atPath: disk, contents: Data(count: 1 << 20)))
            let script = """
                if grep -q again /dev/vda; then echo second life; exit; fi
                echo again > /run/word; dd if=/run/word of=/dev/vda conv=fsync 2>/dev/null; reboot -f
                """
            let result = try await guest(["--disk", disk], script: script)
            #expect(result.status == 0 && result.output.contains("second life"), "\(result.summary)")
            let command = """
                '\(Hover.path)' run linux --engine interpreter --disk '\(disk)' --console none & pid=$!
                sleep 1; '\(Hover.path)' run linux --engine interpreter --disk '\(disk)' --timeout 5s; echo "second: $?"
                kill $pid; wait $pid
                """
            let both = try await ChildProcess.run(["/bin/sh", "-c", command], deadline: 60)
            #expect(both.output.contains("second: 65") && both.error.contains("in use"), "\(both.summary)")
        }

        /// 100 MiB each way through passt, fewer by the other transport, and what arrives is what was sent.
        @Test(arguments: transports) func aNetworkCarriesWhatIsSent(transport: String) async throws {
            try needs("passt", package: "passt")
            let size = (transport == "pci" ? 100 : 10) << 20
            // Mebibytes that differ in where they begin: a hundred million steps in a debug build are half a minute.
            let block = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 11) }
            let data = (0..<size >> 20).reduce(into: [UInt8]()) { $0 += [UInt8(truncatingIfNeeded: $1)] + block.dropLast() }
            let (server, port) = try LocalSocket.listen()
            // Nobody comes any more once the guest is gone: who waits for one is told.
            defer { close(server) }
            defer { shutdown(server, Int32(SHUT_RDWR)) }
            let received = Task.detached { () -> [UInt8] in
                // The guest's first connection fetches, as from a web server; the second sends.
                let first = LocalSocket.accept(server)
                var request: [UInt8] = []
                while !String(decoding: request, as: UTF8.self).contains("\r\n\r\n") {
                    let more = LocalSocket.receive(from: first, atMost: 1)
                    guard !more.isEmpty else { break }
                    request += more
                }
                LocalSocket.send(Array("HTTP/1.0 200 OK\r\nContent-Length: \(size)\r\n\r\n".utf8) + data, to: first)
                close(first)
                let second = LocalSocket.accept(server)
                defer { close(second) }
                return LocalSocket.receive(from: second, atMost: size)
            }
            let script = """
                gateway=$(ip route | awk '/^default/ { print $3 }')
                wget -q -O /run/data http://$gateway:\(port)/ && md5sum /run/data
                nc $gateway \(port) < /run/data; echo packets of $(cat /sys/class/net/eth0/mtu)
                """
            let result = try await guest(
                ["--memory", "512M", "--net", "user", "--transport", transport], script: script, deadline: 240)
            shutdown(server, Int32(SHUT_RDWR))
            #expect(result.status == 0 && result.output.contains("packets of 15000"), "\(result.summary)")
            let file = NSTemporaryDirectory() + "hover-net-\(getpid())"
            defer { try? FileManager.default.removeItem(atPath: file) }
            try Data(data).write(to: URL(fileURLWithPath: file))
            let sum = try await ChildProcess.run(["md5sum", file], deadline: 60)
            #expect(result.output.contains(String(sum.output.prefix(32))), "what came: \(result.summary)")
            let sent = await received.value
            #expect(difference(of: sent, from: data) == nil, "what went: \(sent.count) bytes")
        }

        /// 100 MiB each way over a TAP interface, with the checksums left to the host, in a network namespace of the test's own.
        @Test(arguments: transports) func aTapCarriesWhatIsSent(transport: String) async throws {
            try needs("busybox", package: "busybox-static")
            let isolated = try await ChildProcess.run(["unshare", "-n", "/bin/test", "-c", "/dev/net/tun"], deadline: 10)
            guard isolated.status == 0 else {
                try Test.cancel("no network namespace, or no /dev/net/tun, for a TAP interface of the test's own: \(isolated.error)")
            }
            _ = try ImageStore().fetch("linux")
            let scratch = try Scratch()
            let guest = """
                for i in $(seq 1 10); do wget -q -O /run/data http://10.9.0.1:7000/data && break; sleep 1; done
                md5sum /run/data; nc 10.9.0.1 7001 < /run/data
                """
            let words = "windhover.ip=10.9.0.2/24 windhover.exec=" + Data(guest.utf8).base64EncodedString()
            let command = """
                cd '\(scratch.path)'; head -c 104857600 /dev/urandom > data
                '\(Hover.path)' run linux --engine interpreter --memory 512M --net tap:t0 --transport \(transport) --append '\(words)' & pid=$!
                for i in $(seq 1 100); do busybox ip link show t0 > /dev/null 2>&1 && break; sleep 0.1; done
                busybox ip addr add 10.9.0.1/24 dev t0; busybox ip link set t0 up
                busybox httpd -f -p 7000 -h . & server=$!
                tail -f /dev/null | busybox nc -l -p 7001 > up &
                wait $pid; status=$?; kill $server; cmp data up && echo 'the same'; md5sum data; exit $status
                """
            let result = try await ChildProcess.run(["unshare", "-n", "/bin/sh", "-c", command], deadline: 120)
            #expect(result.status == 0 && result.output.contains("the same"), "\(result.summary)")
            let sums = result.output.split(whereSeparator: \.isWhitespace).filter { $0.count == 32 && $0.allSatisfy(\.isHexDigit) }
            #expect(sums.count == 2 && sums.first == sums.last, "what came down: \(result.summary)")
        }

        @Test(arguments: transports) func socketsGoBothWays(transport: String) async throws {
            _ = try ImageStore().fetch("linux")
            let files = try #require(ImageStore().image("linux")).files
            let scratch = try Scratch()
            let built = try await ChildProcess.run(
                [
                    "clang", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", "-O2", "-fuse-ld=lld", "-o",
                    scratch.file("vsock"), Repository.root + "/Tests/IntegrationTests/rig/vsock.c",
                ], deadline: 60)
            try #require(built.status == 0, "\(built.summary)")
            var archive = CPIOArchive()
            archive.addFile("vsock", Array(try Data(contentsOf: URL(fileURLWithPath: scratch.file("vsock")))), permissions: 0o755)
            let initrd = scratch.file("initrd")
            try (Data(contentsOf: URL(fileURLWithPath: files.initrd)) + Data(archive.finished())).write(to: URL(fileURLWithPath: initrd))
            let path = scratch.file("v")
            let listener = try LocalSocket.listen(at: path + "_1234")
            defer { close(listener) }
            let sent = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            let host = Task.detached { () throws -> (String, [UInt8]) in
                let guest = LocalSocket.accept(listener)
                let line = LocalSocket.receive(from: guest, atMost: 15)
                LocalSocket.send(Array("and back\n".utf8), to: guest)
                close(guest)
                // Until the guest listens, connections are closed again.
                for _ in 0..<100 {
                    let end = try LocalSocket.connect(to: path, within: 10)
                    LocalSocket.send(Array("CONNECT 52\n".utf8), to: end)
                    var answer: [UInt8] = []
                    while answer.last != UInt8(ascii: "\n") {
                        let more = LocalSocket.receive(from: end, atMost: 1)
                        if more.isEmpty { break }
                        answer += more
                    }
                    if String(decoding: answer, as: UTF8.self).hasPrefix("OK ") {
                        Thread.detachNewThread {
                            LocalSocket.send(sent, to: end)
                            shutdown(end, Int32(SHUT_WR))
                        }
                        return (String(decoding: line, as: UTF8.self), LocalSocket.receive(from: end))
                    }
                    close(end)
                    usleep(100_000)
                }
                return (String(decoding: line, as: UTF8.self), [])
            }
            let result = try await guest(
                ["--initrd", initrd, "--vsock", path, "--transport", transport], script: "/vsock connect 1234; /vsock listen 52")
            #expect(result.status == 0, "\(result.summary)")
            for text in ["and back", "listening", "done"] {
                #expect(result.output.contains(text), "'\(text)' is missing: \(result.summary)")
            }
            let (line, echoed) = try await host.value
            #expect(line == "from the guest\n")
            #expect(difference(of: echoed, from: sent) == nil, "\(echoed.count) bytes came back")
            #expect(!FileManager.default.fileExists(atPath: path), "the socket goes with the machine")
        }

        /// A directory of the host's, mounted by Linux's own driver: what the guest does to it is there, and nothing else is.
        @Test(arguments: transports) func aDirectoryIsShared(transport: String) async throws {
            let scratch = try Scratch()
            let (shared, kept) = (scratch.file("shared"), scratch.file("kept"))
            for path in [shared, kept] { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
            try "from the host".write(toFile: shared + "/host", atomically: false, encoding: .utf8)
            try "secret".write(toFile: scratch.file("outside"), atomically: false, encoding: .utf8)
            try FileManager.default.createSymbolicLink(atPath: shared + "/way-out", withDestinationPath: "../outside")
            let script = """
                mkdir -p /a /b; mount -t virtiofs code /a && mount -t virtiofs share1 /b || echo no mount
                cat /a/host; echo; cat /a/way-out 2>&1 | tail -n 1
                dd if=/dev/urandom of=/a/data bs=64k count=64 2>/dev/null; md5sum /a/data
                mkdir /a/tree; for n in $(seq 1 200); do echo $n > /a/tree/$n; done; ls /a/tree | wc -l
                mv /a/tree/1 /a/one; ln /a/one /a/two; rm /a/tree/2; chmod 640 /a/one; stat -c 'mode %a links %h' /a/one
                touch /b/x 2>&1
                echo 3 > /proc/sys/vm/drop_caches; md5sum /a/data; umount /a && echo unmounted
                """
            let result = try await guest(
                ["--share", "\(shared):code", "--share", "\(kept),readonly", "--transport", transport], script: script)
            #expect(result.status == 0, "\(result.summary)")
            for text in ["from the host", "'/a/way-out': No such file", "200\r\n", "mode 640 links 2", "Read-only file system", "unmounted"] {
                #expect(result.output.contains(text), "'\(text)' is missing: \(result.summary)")
            }
            #expect(!result.output.contains("secret") && !result.output.contains("no mount"), "\(result.summary)")
            let sum = try await ChildProcess.run(["md5sum", shared + "/data"], deadline: 30)
            #expect(result.output.components(separatedBy: String(sum.output.prefix(32))).count == 3, "\(result.summary)\n\(sum.summary)")
            #expect(try String(contentsOfFile: shared + "/two", encoding: .utf8) == "1\n")
            #expect(try FileManager.default.contentsOfDirectory(atPath: shared + "/tree").count == 198)
            #expect(try FileManager.default.contentsOfDirectory(atPath: kept).isEmpty)
        }

        /// The host's whole tree: its programs are there, and what its kernel says of them is not.
        @Test func theHostsTreeIsShared() async throws {
            let script = """
                mkdir -p /h; mount -t virtiofs root /h || echo no mount
                cmp /h/etc/passwd /h/etc/passwd && echo passwd $(wc -c < /h/etc/passwd)
                for d in proc sys; do echo $d $(ls -a /h/$d | grep -vxc '[.]*'); done
                cat /h/proc/self/environ /h/proc/1/environ /h/sys/kernel/notes 2>/dev/null | wc -c
                mount -t proc proc /h/proc && echo mounted $(ls /h/proc | grep -c '^1$')
                """
            let result = try await guest(["--share", "/:root,readonly"], script: script)
            let size = try FileManager.default.attributesOfItem(atPath: "/etc/passwd")[.size] as? Int ?? 0
            #expect(result.status == 0, "\(result.summary)")
            for text in ["passwd \(size)\r\n", "proc 0\r\n", "sys 0\r\n", "\r\n0\r\n", "mounted 1"] {
                #expect(result.output.contains(text), "'\(text)' is missing: \(result.summary)")
            }
        }

        /// Memory that the guest has used and given up leaves the monitor.
        @Test func memoryGoesBackToTheHost() async throws {
            let scratch = try Scratch()
            let console = scratch.file("console")
            let script = "mount -o remount,size=90% /run; dd if=/dev/zero of=/run/big bs=1M count=300 2>/dev/null; echo full; sleep 3; rm /run/big; echo empty; sleep 12"
            let encoded = Data(script.utf8).base64EncodedString()
            _ = try ImageStore().fetch("linux")
            // Resident KiB when the guest's memory is full, and some time after it is not.
            let command = """
                '\(Hover.path)' run linux --engine interpreter --memory 512M --balloon --console 'file:\(console)' --append windhover.exec=\(encoded) & pid=$!
                rss() { awk '/^VmRSS/ { print $2 }' /proc/$pid/status; }
                wait_for() { for i in $(seq 1 600); do grep -q "$1" '\(console)' 2>/dev/null && return; sleep 0.1; done; }
                wait_for full; echo full $(rss)
                wait_for empty; sleep 8; echo empty $(rss)
                wait $pid
                """
            let result = try await ChildProcess.run(["/bin/sh", "-c", command], deadline: 120)
            func resident(_ name: String) -> Int? {
                result.output.split(whereSeparator: \.isNewline).first { $0.hasPrefix(name + " ") }.flatMap { Int($0.split(separator: " ")[1]) }
            }
            let (full, empty) = (try #require(resident("full")), try #require(resident("empty")))
            #expect(full > 300 << 10, "\(result.summary)")
            #expect(empty < full - 250 << 10, "\(full) KiB, then \(empty): \(result.summary)")
        }

        /// A guest is given half of its memory from the start on, and the rest by a key.
        @Test func aTargetIsSetAtTheStartAndByAKey() async throws {
            _ = try ImageStore().fetch("linux")
            let session = try TerminalChild(
                [Hover.path, "run", "linux", "--engine", "interpreter", "--memory", "512M", "--memory-target", "256M", "--timeout", "120s"], rows: 24,
                columns: 80)
            try #require(session.expect("windhover:~# ", within: 60), "\(session.text)")
            func expectAvailable(_ test: String) {
                // A thousand times a tenth of a second at most.
                session.type(
                    "for i in $(seq 1 100); do a=$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo); [ $a \(test) ] && break; usleep 100000; done; [ $a \(test) ] && echo it''is $a\r")
                #expect(session.expect("\r\nitis ", within: 60), "\(session.text)")
            }
            expectAvailable("-lt 256")
            for part in ["320 MiB", "384 MiB", "448 MiB", "512 MiB", "512 MiB"] {
                session.type("\u{1}+")
                #expect(session.expect("make do with \(part) of 512 MiB", within: 10), "\(session.text)")
            }
            expectAvailable("-gt 400")
            session.type("poweroff\r")
            #expect(session.end(within: 60) == 0, "\(session.text)")
        }

        /// A port to a file gets all that is written before the guest powers off; one to a socket is a conversation.
        @Test(arguments: transports) func portsCarryBytes(transport: String) async throws {
            let scratch = try Scratch()
            let (file, socket) = (scratch.file("file"), scratch.file("socket"))
            let conversation = Task.detached { () -> String in
                var answers = ""
                for question in ["one", "two"] {
                    let end = try LocalSocket.connect(to: socket, within: 60)
                    LocalSocket.send(Array("\(question)\n".utf8), to: end)
                    answers += String(decoding: LocalSocket.receive(from: end, atMost: "answer to one\n".utf8.count), as: UTF8.self)
                    close(end)
                }
                return answers
            }
            let script = """
                ls /dev/virtio-ports; cat /sys/class/virtio-ports/*/name | sort | xargs echo names
                echo lost > /dev/virtio-ports/full
                exec 3<> /dev/virtio-ports/talk-1
                for i in 1 2; do until read -r line <&3; do usleep 10000; done; echo "answer to $line" >&3; done
                head -c 1000000 /dev/urandom > /run/data; md5sum /run/data; cat /run/data > /dev/virtio-ports/org.example.log; poweroff -f
                """
            let result = try await guest(
                ["--port", "org.example.log:file:\(file)", "--port", "full:file:/dev/full", "--port", "talk-1:unix:\(socket)", "--transport", transport], script: script)
            #expect(result.status == 0, "\(result.summary)")
            #expect(result.output.contains("names full org.example.log talk-1"), "\(result.summary)")
            #expect(try await conversation.value == "answer to one\nanswer to two\n")
            let sum = try await ChildProcess.run(["md5sum", file], deadline: 30)
            #expect(result.output.contains(String(sum.output.prefix(32))), "\(result.summary)\n\(sum.summary)")
            #expect(!FileManager.default.fileExists(atPath: socket))
            #expect(result.error.contains("some of port full's output is lost: '/dev/full' could not be written"), "\(result.summary)")
        }
    }
}
