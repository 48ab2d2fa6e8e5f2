import Glibc
import Testing
import Windhover

/// Disks, networks, directories and sockets that a machine cannot have.
extension BadInputTests {
    @Test func disksThatAreNone() throws {
        scratch.file("empty", [])
        scratch.file("odd", [UInt8](repeating: 0, count: 1000))
        scratch.file("disk", [UInt8](repeating: 0, count: 4096))
        scratch.file("layered", Array("QFI\u{fb}".unicodeScalars.map { UInt8($0.value) }) + [UInt8](repeating: 0xFF, count: 4092))
        mkdir(scratch.path + "/directory", 0o755)
        mkfifo(scratch.path + "/pipe", 0o644)
        try expect(.noSuchFile, ["run", "--disk", "missing"], naming: ["'missing'"])
        // Before anything is fetched for it.
        try expect(.noSuchFile, ["run", "linux", "--disk", "missing"], naming: ["'missing'"])
        for (name, what) in [("directory", "a directory"), ("pipe", "a pipe"), ("empty", "is empty"), ("odd", "512"), ("/dev/null", "a character device")] {
            try expect(.badConfiguration, ["run", "--disk", name], naming: ["'\(name)'", what])
        }
        try expect(.badConfiguration, ["run", "--disk", "layered"], naming: ["'layered'", "format=qcow2", "format=raw"])
        try expect(.badConfiguration, ["run", "--disk", "layered,format=qcow2"], naming: ["layered", "version"])
        try expect(.badConfiguration, ["run", "--disk", "disk,format=qcow2"], naming: ["disk", "not a qcow2 image"])
        try expect(.badConfiguration, ["run", "--disk", "disk", "--disk", "disk"], naming: ["'disk'", "in use"])
        try expect(.noSuchFile, ["run", "--disk", "disk,format=qcow2,backing=base"], naming: ["'base'"])
        try expect(.badConfiguration, ["run", "--disk", "disk,format=qcow2,direct"], naming: ["direct"])
    }

    @Test func disksThatMayNotBeOpened() throws {
        scratch.file("mine", [UInt8](repeating: 0, count: 4096), mode: 0)
        scratch.file("shown", [UInt8](repeating: 0, count: 4096), mode: 0o444)
        let nobody = try anotherUser()
        try expect(.notPermitted, ["run", "--disk", "mine"], naming: ["'mine'", "ls -l"], through: nobody)
        try expect(.notPermitted, ["run", "--disk", "shown"], naming: ["'shown'", "readonly"], through: nobody)
    }

    @Test func networksThatCannotBe() throws {
        if access("/dev/net/tun", F_OK) == 0 {
            try expect(.badConfiguration, ["run", "--net", "tap:lo"], naming: ["--net tap:lo", "lo is not a tap device"])
        }
        // A search path without passt.
        let without = try HoverProcess.run(["run", "--net", "user"], in: scratch.path, variables: ["PATH": scratch.path])
        #expect(without.status == ExitStatus.unavailable.rawValue, "\(without.errors)")
        #expect(without.errors.contains("apt-get install passt"), "\(without.errors)")
        // A port that somebody has.
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && listen(listener, 1) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        try #require(isListening)
        let port = UInt16(bigEndian: address.sin_port)
        try expect(
            .badConfiguration, ["run", "--net", "user,forward=\(port):80"], naming: ["--net user", "port \(port)", "in use"])
    }

    @Test func directoriesThatCannotBeShared() throws {
        scratch.file("file", [1])
        mkdir(scratch.path + "/directory", 0o755)
        try expect(.noSuchFile, ["run", "--share", "missing"], naming: ["'missing'"])
        try expect(.badConfiguration, ["run", "--share", "file"], naming: ["'file'"])
        try expect(.badConfiguration, ["run", "--share", "directory:a", "--share", "directory:a"], naming: ["--share", "'a'"])
    }

    @Test func socketsThatCannotBe() throws {
        scratch.file("file", [1])
        try expect(.badConfiguration, ["run", "--vsock", "file"], naming: ["'file'"])
        try expect(.noSuchFile, ["run", "--vsock", "missing/v"], naming: ["'missing/v'"])
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array((scratch.path + "/taken").utf8)) }
        let isListening = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0 }
                && listen(listener, 1) == 0
        }
        try #require(isListening)
        try expect(.badConfiguration, ["run", "--vsock", "taken"], naming: ["'taken'", "in use"])
        // A guest that cannot start leaves none behind.
        scratch.file("odd", [UInt8](repeating: 0x55, count: 100))
        for transport in ["mmio", "pci"] {
            try expect(.badConfiguration, ["run", "odd", "--vsock", "new", "--transport", transport], naming: ["odd is not a kernel"])
        }
    }

    @Test func portsThatCannotBe() throws {
        scratch.file("file", [1])
        mkdir(scratch.path + "/directory", 0o755)
        mkfifo(scratch.path + "/pipe", 0o644)
        for words in ["x", "x:file", "x:tcp:80", "a/b:file:f", "8080:80"] {
            try expect(.usage, ["run", "--port", words], naming: ["--port", words == "a/b:file:f" ? "'a/b'" : "'\(words)'"])
        }
        try expect(.badConfiguration, ["run", "--port", "x:file:f", "--port", "x:file:g"], naming: ["--port", "'x'"])
        try expect(.badConfiguration, ["run", "--port", "x:file:f", "--port", "y:unix:f"], naming: ["--port", "'f'"])
        // A file that was made for the first is gone again.
        for (target, status, words) in [
            ("file:missing/f", ExitStatus.noSuchFile, "'missing/f'"), ("file:directory", .badConfiguration, "'directory'"),
            ("file:pipe", .badConfiguration, "nobody reads"), ("unix:file", .badConfiguration, "'file'"),
            ("unix:missing/s", .noSuchFile, "'missing/s'"), ("unix:\(String(repeating: "s", count: 108))", .badConfiguration, "107"),
        ] {
            try expect(status, ["run", "--port", "first:file:new", "--port", "x:\(target)"], naming: ["--port x", words])
        }
        // Nor is it left where the guest cannot start.
        scratch.file("odd", [UInt8](repeating: 0x55, count: 100))
        try expect(.badConfiguration, ["run", "odd", "--port", "first:file:new", "--port", "second:unix:socket"], naming: ["odd is not a kernel"])
    }

    @Test func memoryTargetsThatCannotBe() throws {
        for (target, status) in [("0", ExitStatus.badConfiguration), ("1G", .badConfiguration), ("much", .usage), ("-1M", .usage), ("64", .usage)] {
            try expect(status, ["run", "--memory-target", target], naming: ["--memory-target"])
        }
    }
}
