import Foundation

extension Scenario {
    static let conformanceName = "conformance suite"

    /// What runs in a box, in this order.
    static func all(in box: Box) -> [Scenario] {
        box.isWhole ? whole(box) : whole(box).filter { brief.contains($0.name) }
    }

    private static func whole(_ box: Box) -> [Scenario] {
        let guests = GuestProgram.all.flatMap { program in
            ["kernel", "split"].map { Scenario(program, interruptChips: $0, in: box) }
        }
        let work: [Scenario] = conformance + [.privilegedPrograms(in: box)] + debian(box) + commands(box)
        return (work + ends(box) + badInput + guests).filter { $0.boxes.contains(box) }
    }

    /// Names of `brief` that no scenario has.
    static var unknownBriefNames: Set<String> { brief.subtracting(whole(.intel).map(\.name)) }

    /// What a box that is not whole runs: the suite, Debian on one and two processors, and each way a run can end.
    private static let brief: Set<String> = [
        conformanceName, PrivilegedPrograms.name, "Debian, the prepared image, 1 vCPU", "Debian, the prepared image, 2 vCPU",
        "kernel panic, by SysRq", "kernel panic, init ends", "time-out", "reset, --no-reboot", "triple fault", "SIGTERM",
        "the engine that was asked for is in the statistics", "a kernel that is not there", "1000 CPUs", "an unknown option",
        "exit-code, forty-two, kernel interrupt controllers", "power-off, split interrupt controllers",
    ]


    /// Its rows are tests of their own; here is only that it came to its end.
    private static let conformance: [Scenario] = {
        var scenario = Scenario(conformanceName, "conformance | tee /dev/console", limit: 300, status: 0)
        scenario.judge = { result in
            result.output.contains(" passed, ") ? .passed : .failed("the program did not come to its end")
        }
        return [scenario]
    }()

    /// hover run of Debian's kernel, whose init runs a script and powers off.
    private static func linux(_ options: String, script: String, image: String = "linux") -> String {
        let encoded = Data(script.utf8).base64EncodedString()
        return "exec hover run \(image) --memory 256M \(options) --append windhover.exec=\(encoded)"
    }

    /// Debian's own kernel, in each form and on one and two processors, to user space and to power-off.
    private static func debian(_ box: Box) -> [Scenario] {
        let files = [
            ("the prepared image", "linux"),
            ("bzImage", "/images/linux/vmlinuz --initrd /images/linux/initrd.cpio"),
            ("vmlinux", "/images/vmlinux --initrd /images/linux/initrd.cpio"),
        ]
        var scenarios = files.flatMap { name, image in
            [1, 2].map { count in
                // A boot takes Bochs a minute.
                Scenario(
                    "Debian, \(name), \(count) vCPU", linux("--cpus \(count)", script: "echo processors: $(nproc)", image: image),
                    boxes: image == files[1].1 && count == 2 || image == files[2].1 && count == 1 ? [.amd] : Box.allCases,
                    status: 0, output: ["processors: \(count)", "reboot: Power down"])
            }
        }
        scenarios += [1, 2].map { count in
            Scenario(
                "Debian, split interrupt controllers, \(count) vCPU",
                linux("--cpus \(count) --irqchip split", script: "echo processors: $(nproc); cat /proc/interrupts"), status: 0,
                output: ["processors: \(count)", "IO-APIC", "reboot: Power down"])
        }
        scenarios.append(
            Scenario(
                "Debian, bzImage that unpacks itself", linux("--decompress guest", script: "echo up", image: files[1].1),
                limit: 120, boxes: [.amd], status: 0, output: ["up", "reboot: Power down"]))
        let little = """
            for i in $(seq 100); do a=$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo); [ $a -lt 128 ] && break; usleep 100000; done
            [ $a -lt 128 ] && echo makes do with little; echo by the port > /dev/virtio-ports/log
            """
        scenarios.append(
            Scenario(
                "a memory target, and a port",
                "(\(linux("--memory-target 128M --port log:file:log", script: little))); status=$?; cat log; exit $status", boxes: [.amd],
                status: 0, output: ["makes do with little", "by the port", "reboot: Power down"]))
        scenarios.append(
            Scenario(
                "Debian, typed at", "exec hover run linux --memory 256M --cpus 2",
                input: "echo typed: $((6 * 7))\nexit\n", status: 0, output: ["typed: 42", "reboot: Power down"]))
        return scenarios
    }

    /// A disk behind each transport, with each set of interrupt controllers: what the guest writes is in the file.
    private static let disks: [Scenario] = ["mmio", "pci"].flatMap { transport in
        ["kernel", "split"].map { chips in
            let script = """
                dd if=/dev/urandom of=/run/data bs=64k count=32 2>/dev/null
                dd if=/run/data of=/dev/vda bs=64k conv=fsync 2>/dev/null
                echo 3 > /proc/sys/vm/drop_caches
                dd if=/dev/vda bs=64k count=32 2>/dev/null | cmp - /run/data && echo read back
                md5sum /run/data; grep virtio /proc/interrupts
                """
            let options = "--cpus 2 --disk disk --transport \(transport) --irqchip \(chips) --balloon"
            return Scenario(
                "a disk, \(transport), \(chips) interrupt controllers",
                "head -c 4194304 /dev/zero >disk; (\(linux(options, script: script))) >out; status=$?; cat out; "
                    + "grep -q $(head -c 2097152 disk | md5sum | cut -d ' ' -f 1) out && echo the same; exit $status",
                boxes: chips == "split" && transport == "mmio" ? Box.allCases : [.amd], status: 0,
                output: ["read back", "the same", "virtio0", "reboot: Power down"])
        }
    }

    /// Every way a run can end.
    private static func ends(_ box: Box) -> [Scenario] {
        [
            Scenario(
                "kernel panic, no root", "exec hover run /images/linux/vmlinuz --memory 256M --append quiet", status: 255,
                error: ["Kernel panic - not syncing: VFS"]),
            Scenario(
                "kernel panic, by SysRq", linux("--cpus 2", script: "echo c > /proc/sysrq-trigger"), status: 255,
                error: ["Kernel panic - not syncing: sysrq triggered crash"]),
            Scenario(
                "kernel panic, init ends", "exec hover run linux --memory 256M --append rdinit=/bin/true", status: 255,
                error: ["Kernel panic - not syncing: Attempted to kill init"]),
            Scenario(
                "time-out", linux("--timeout \(box.brief)", script: "sleep 1000"), status: 124, error: ["--timeout"]),
            Scenario(
                "reset, --no-reboot", linux("--no-reboot --stats stats", script: "reboot -f") + "; cat stats", status: 0,
                output: ["reboot: Restarting system"]),
            Scenario(
                "reset starts anew",
                "hover run /guests/reset.img --append keyboard --timeout \(box.brief) >out; status=$?; sort out | uniq -c; exit $status",
                status: 124, output: ["reset by the keyboard controller"]),
            Scenario(
                "triple fault", "exec hover run /guests/triple-fault.img --cpus 2", status: 70,
                error: ["triple fault", "rip ", "cr0 ", "code "]),
            Scenario(
                "SIGTERM", "hover run linux --memory 256M >out & sleep 1; kill -TERM $!; wait $!", status: 143),
            Scenario(
                "flood that nobody reads",
                """
                mkfifo pipe
                sleep 100 <pipe &
                hover run /guests/flood.img >pipe & hover=$!
                sleep 2
                echo resident: $(awk '/^RssAnon/ { print ($2 < 65536) ? "bounded" : $2 }' /proc/$hover/status)
                kill -TERM $hover
                wait $hover
                """, limit: 20, status: 143, output: ["resident: bounded"]),
            Scenario(
                "the engine that was asked for is in the statistics",
                "hover run /guests/power-off.img --engine kvm --stats stats >out; cat stats", status: 0,
                output: ["\"engine\" : \"kvm\"", "\"outcome\" : \"powered-off\""]),
            Scenario("doctor", "exec hover doctor", status: 0, output: ["kvm"]),
        ]
    }

    /// What cannot be run: one line, the contract's status, nothing left behind.
    private static let badInput: [Scenario] = [
        Scenario("a kernel that is not there", "exec hover run --kernel /nowhere", status: 66, error: ["/nowhere"]),
        Scenario(
            "an initrd that is not there", "exec hover run /images/linux/vmlinuz --initrd /nowhere", status: 66,
            error: ["/nowhere"]),
        Scenario("a kernel that is empty", ": >empty; exec hover run empty", status: 65, error: ["empty"]),
        Scenario(
            "a kernel of random bytes", "head -c 1000000 /dev/urandom >random; exec hover run random", status: 65,
            error: ["random"]),
        Scenario(
            "a kernel cut short", "head -c 100000 /images/linux/vmlinuz >short; exec hover run short", status: 65,
            error: ["short"]),
        Scenario(
            "a vmlinux cut short", "head -c 1000000 /images/vmlinux >short; exec hover run short", status: 65, error: ["short"]),
        Scenario(
            "an initrd larger than memory",
            "exec hover run /images/linux/vmlinuz --memory 96M --initrd /images/vmlinux", status: 65, error: ["initrd"]),
        Scenario(
            "more memory than the host has", "exec hover run --memory 100G", status: 65, error: ["--memory 100G"]),
        Scenario("no memory", "exec hover run --memory 0M", status: 65, error: ["memory"]),
        Scenario("no CPU", "exec hover run --cpus 0", status: 65, error: ["CPU"]),
        Scenario("1000 CPUs", "exec hover run --cpus 1000", status: 65, error: ["1000"]),
        Scenario("an unknown option", "exec hover run --frob x", status: 64, error: ["--frob"]),
        Scenario(
            "no /dev/kvm, yet KVM asked for",
            "rm /dev/kvm; hover run --engine kvm --timeout 5s; status=$?; mknod /dev/kvm c 10 232; exit $status",
            status: 69, error: ["/dev/kvm"]),
        // The other engine takes over, and says so in the line before the time limit's.
        Scenario(
            "no /dev/kvm", "rm /dev/kvm; hover run --timeout 5s; status=$?; mknod /dev/kvm c 10 232; exit $status",
            status: 124, error: ["using the interpreter", "/dev/kvm", "--timeout"]),
        Scenario(
            "no permission on /dev/kvm",
            "chmod 600 /dev/kvm; su guest -s /bin/sh -c 'hover run --engine kvm --timeout 5s'", status: 77,
            error: ["/dev/kvm"]),
    ]
}
