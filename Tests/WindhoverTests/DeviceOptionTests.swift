import Testing
import Virtio

@testable import Windhover

@Suite struct DeviceOptionTests {
    private func refusal(_ body: () throws -> Void) -> ConfigurationError? {
        do { try body() } catch { return error as? ConfigurationError }
        return nil
    }

    @Test func aDiskIsAFileAndWords() throws {
        let plain = try DiskConfiguration("debian.img")
        #expect(plain.path == "debian.img")
        #expect(!plain.isReadOnly && !plain.isDirect && plain.format == .raw && !plain.isFormatNamed)
        #expect(plain.queues == 1 && plain.serial == nil && plain.bandwidth == nil)
        let full = try DiskConfiguration(
            "a,,b.qcow2,readonly,format=qcow2,backing=base.img,direct,serial=S1,queues=4,bandwidth=10M/64M,operations=500")
        #expect(full.path == "a,b.qcow2")
        #expect(full.isReadOnly && full.isDirect && full.format == .qcow2 && full.isFormatNamed)
        #expect(full.backing == .file(path: "base.img", format: .raw))
        #expect(try DiskConfiguration("a,format=qcow2,backing=none").backing == .absent)
        #expect(full.serial == "S1" && full.queues == 4)
        #expect(full.bandwidth?.perSecond == 10 << 20 && full.bandwidth?.burst == 64 << 20)
        #expect(full.operations?.perSecond == 500 && full.operations?.burst == nil)
    }

    @Test(arguments: [
        "", ",readonly", "x,", "x,,,readonly,", "x,readonly=yes", "x,format=", "x,format=vmdk", "x,readwrite", "x,format=raw,format=raw",
        "x,serial=123456789012345678901", "x,serial=a b", "x,queues=0", "x,queues=17", "x,queues=-1", "x,bandwidth=0", "x,bandwidth=fast",
        "x,bandwidth=1M/0", "x,bandwidth=1M/2M/3M", "x,bandwidth=99999999999999999999", "x,bandwidth=99999999999G", "x,operations=/5",
        "x,backing=y", "x,backing-format=raw", "x,format=qcow2,backing-format=raw", "x,format=qcow2,backing=none,backing-format=raw",
    ])
    func aDiskThatIsNone(_ text: String) {
        let failure = refusal { _ = try DiskConfiguration(text) }
        #expect(failure?.exitStatus == .usage, "\(text)")
        #expect(failure?.description.contains("--disk") == true)
    }

    @Test func aNetworkIsUserOrTap() throws {
        let user = try NetworkConfiguration("user,forward=8080:80,forward=udp:5353:53,mac=02:00:00:00:00:0a")
        #expect(user.kind == .user)
        #expect(user.forwards.map(\.host) == [8080, 5353])
        #expect(user.forwards.map(\.guest) == [80, 53])
        #expect(user.forwards.map(\.transport) == [.tcp, .udp])
        #expect(user.address == MACAddress(2, 0, 0, 0, 0, 10))
        let tap = try NetworkConfiguration("tap:tap0,queues=2,bandwidth=1M")
        #expect(tap.kind == .tap("tap0") && tap.queues == 2 && tap.address == nil)
    }

    @Test(arguments: [
        "", "tap", "tap:", "tap:a/b", "tap:0123456789abcdef", "bridge", "user,forward=80", "user,forward=0:80", "user,forward=70000:80",
        "user,forward=tcp:1:2:3", "user,forward=icmp:1:2", "user,mac=01:00:00:00:00:00", "user,mac=00:00:00:00:00:00", "user,mac=2:0:0:0:0:0",
        "user,mac=+2:00:00:00:00:00", "user,queues=2", "tap:x,forward=1:2", "user,speed=1",
    ])
    func aNetworkThatIsNone(_ text: String) {
        let failure = refusal { _ = try NetworkConfiguration(text) }
        #expect(failure?.exitStatus == .usage, "\(text)")
        #expect(failure?.description.contains("--net") == true)
    }

    @Test func socketsHaveAPathAndAnIdentifier() throws {
        #expect(try SocketConfiguration("/run/v.sock") == SocketConfiguration("/run/v.sock,cid=3"))
        #expect(try SocketConfiguration("v,cid=52").guest == 52)
        for text in ["", "v,cid=2", "v,cid=4294967295", "v,cid=x", "v,port=1"] {
            #expect(refusal { _ = try SocketConfiguration(text) }?.exitStatus == .usage, "\(text)")
        }
        let long = String(repeating: "x", count: 97)
        #expect(refusal { _ = try SocketConfiguration(long) }?.exitStatus == .badConfiguration)
        #expect(throws: Never.self) { try SocketConfiguration(String(long.dropLast())) }
    }

    @Test func aShareIsADirectoryAndATag() throws {
        let plain = try ShareConfiguration("/home/u")
        #expect(plain.path == "/home/u" && plain.tag == nil && !plain.isReadOnly && plain.caching == .auto)
        let full = try ShareConfiguration("/a:b:code,readonly,cache=none")
        #expect(full.path == "/a:b" && full.tag == "code" && full.isReadOnly && full.caching == .none)
        for text in ["", ":t", "/a:", "/a,ro", "/a,cache=some", "/a:" + String(repeating: "t", count: 37)] {
            #expect(refusal { _ = try ShareConfiguration(text) }?.exitStatus == .usage, "\(text)")
        }
        #expect(try ShareConfiguration.tags(of: [plain, full, plain]) == ["share", "code", "share2"])
        #expect(refusal { _ = try ShareConfiguration.tags(of: [full, full]) }?.exitStatus == .badConfiguration)
    }

    @Test func aPortHasANameAndAnEnd() throws {
        let file = try PortConfiguration("org.example_1-a:file:/tmp/a:b,c")
        #expect(file.name == "org.example_1-a" && file.target == .file("/tmp/a:b,c"))
        #expect(try PortConfiguration("0:unix:s").target == .socket("s"))
        #expect(try PortConfiguration(String(repeating: "n", count: 64) + ":unix:s").name.utf8.count == 64)
        for text in [
            "", "a", "a:", "a:file", "a:file:", "a:unix:", ":file:b", "a:tcp:b", "a:File:b", "8080:80", ".:file:b", "..:unix:b", "a/b:file:c",
            "a b:file:c", "\u{e9}:file:c", "a\n:file:c", "@:file:c", "[:file:c", String(repeating: "n", count: 65) + ":file:c",
        ] {
            let failure = refusal { _ = try PortConfiguration(text) }
            #expect(failure?.exitStatus == .usage && failure?.description.contains("--port") == true, "\(text)")
        }
        // What was meant is another option's.
        #expect(refusal { _ = try PortConfiguration("8080:80") }?.description.contains("forward=HOST:GUEST") == true)
    }

    @Test func portsHaveNamesAndEndsOfTheirOwn() throws {
        var options = RunOptions()
        options.ports = (0..<31).map { "p\($0):unix:s\($0)" }
        let configuration = try RunConfiguration(options)
        #expect(configuration.ports.count == 31 && configuration.hasVirtioDevices && !configuration.hasBalloon)
        #expect(!configuration.plan.devices.isEmpty)
        for (more, what) in [("q:unix:t", "at most 31"), ("p0:file:t", "'p0'"), ("q:file:s1", "'s1'")] {
            options.ports = (0..<(what.hasPrefix("at") ? 31 : 2)).map { "p\($0):unix:s\($0)" } + [more]
            let failure = refusal { _ = try RunConfiguration(options) }
            #expect(failure?.exitStatus == .badConfiguration && failure?.description.contains(what) == true, "\(more)")
        }
        options.ports = ["a:file:b"]
        options.clock = "instructions"
        #expect(refusal { _ = try RunConfiguration(options) }?.description.contains("--clock instructions") == true)
    }

    @Test func aBalloonHoldsWhatTheGuestIsNotToHave() throws {
        var options = RunOptions()
        #expect(try RunConfiguration(options).plan.devices.balloon == nil)
        options.balloon = true
        #expect(try RunConfiguration(options).plan.devices.balloon == 0)
        options.balloon = false
        for (target, bytes) in [("128M", 384 << 20), ("512M", 0), ("1M", 511 << 20), ("0.5G", nil), ("513M", nil)] as [(String, UInt64?)] {
            options.memoryTarget = target
            let configuration = try? RunConfiguration(options)
            #expect(configuration?.plan.devices.balloon == bytes && configuration?.hasBalloon == bytes.map { _ in true }, "\(target)")
        }
        for (target, status, words) in [
            ("", ExitStatus.usage, "wants a size"), ("half", .usage, "wants a size"), ("-1M", .usage, "wants a size"), ("256", .usage, "no unit"),
            ("0", .badConfiguration, "memory of 0"), ("0M", .badConfiguration, "memory of 0"), ("4K", .badConfiguration, "too small"),
            ("1025K", .badConfiguration, "4 KiB pages"), ("1G", .badConfiguration, "more than the guest's memory of 512M"),
            ("99999999999999999999G", .badConfiguration, "more than a host can address"),
        ] {
            options.memoryTarget = target
            let failure = refusal { _ = try RunConfiguration(options) }
            #expect(failure?.exitStatus == status, "\(target)")
            #expect(failure?.description.contains("--memory-target") == true && failure?.description.contains(words) == true, "\(target): \(failure?.description ?? "")")
        }
        options.memoryTarget = "256M"
        options.hugePages = "reserved"
        #expect(refusal { _ = try RunConfiguration(options) }?.description.contains("--huge-pages reserved") == true)
        options.hugePages = "transparent"
        #expect(refusal { _ = try RunConfiguration(options) } == nil)
    }

    @Test func aMachineHasRoomForSoMany() {
        var options = RunOptions()
        options.disks = (0..<25).map { "disk\($0)" }
        #expect(refusal { _ = try RunConfiguration(options) }?.exitStatus == .badConfiguration)
        options.disks.removeLast()
        options.clock = "instructions"
        #expect(refusal { _ = try RunConfiguration(options) }?.description.contains("--clock instructions") == true)
        options.clock = "host"
        #expect(refusal { _ = try RunConfiguration(options) } == nil)
        options.transport = "usb"
        #expect(refusal { _ = try RunConfiguration(options) }?.description.contains("--transport takes mmio or pci") == true)
    }
}
