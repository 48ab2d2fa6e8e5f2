import Glibc
import Testing
import Windhover

/// What everybody who gives `hover` something bad gets: the contract's status, one line that names the thing, nothing on
/// standard output, and no file made, emptied or left.
@Suite struct BadInputTests {
    let scratch = Scratch()

    func expect(
        _ status: ExitStatus, _ arguments: [String], naming words: [String], through: [String] = [],
        location: SourceLocation = #_sourceLocation
    ) throws {
        let before = scratch.contents
        let result = try HoverProcess.run(
            arguments, through: through, in: scratch.path,
            variables: ["XDG_CACHE_HOME": scratch.path + "/cache", "HOME": scratch.path, "TMPDIR": scratch.path])
        let shown = "hover \(arguments.joined(separator: " ").prefix(200)): \(result.errors.prefix(600))"
        #expect(!result.hung, "\(shown)", sourceLocation: location)
        #expect(result.status == status.rawValue, "\(shown)", sourceLocation: location)
        #expect(result.output.isEmpty, "\(shown)", sourceLocation: location)
        #expect(result.complaints.count == 1, "\(shown)", sourceLocation: location)
        #expect(result.errors.hasPrefix("hover: ") && result.errors.hasSuffix("\n"), "\(shown)", sourceLocation: location)
        for word in words where !word.isEmpty { #expect(result.errors.contains(word), "\(shown)", sourceLocation: location) }
        #expect(scratch.contents == before, "\(shown)", sourceLocation: location)
    }

    // MARK: Files

    @Test func filesThatAreNotThere() throws {
        scratch.file("file", [1])
        try expect(.noSuchFile, ["run", "--kernel", "missing"], naming: ["kernel 'missing'"])
        try expect(.noSuchFile, ["run", "lunix"], naming: ["'lunix'", "linux"])
        try expect(.noSuchFile, ["run", "--kernel", "file/below"], naming: ["'file/below'"])
        try expect(.noSuchFile, ["run", "--kernel", "file", "--initrd", "missing"], naming: ["initrd 'missing'"])
    }

    @Test func whatIsNoFile() throws {
        scratch.file("file", [1])
        scratch.file("empty", [])
        mkdir(scratch.path + "/directory", 0o755)
        mkfifo(scratch.path + "/pipe", 0o644)
        symlink("loop", scratch.path + "/loop")
        let socket = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array((scratch.path + "/socket").utf8)) }
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        try #require(bound == 0)
        for (name, kind) in [
            ("directory", "a directory"), ("pipe", "a pipe"), ("socket", "a socket"), ("empty", "is empty"),
            ("/dev/null", "a device"), ("loop", "symbolic links"),
        ] {
            try expect(.badConfiguration, ["run", "--kernel", name], naming: ["kernel '\(name)'", kind])
            try expect(.badConfiguration, ["run", "--kernel", "file", "--initrd", name], naming: ["initrd '\(name)'", kind])
        }
    }

    @Test(arguments: BrokenKernels.all.map(\.name))
    func filesThatAreNoKernel(name: String) throws {
        let kernel = try #require(BrokenKernels.all.first { $0.name == name })
        scratch.file(name, kernel.bytes)
        try expect(
            .badConfiguration, ["run", "--kernel", name, "--memory", "64M", "--stats", "s", "--console", "file:c"],
            naming: [name])
    }

    @Test func filesThatMayNotBeRead() throws {
        let kernel = scratch.file("secret", BrokenKernels.elf(), mode: 0)
        scratch.file("kernel", BrokenKernels.elf())
        try expect(
            .notPermitted, ["run", "--kernel", kernel], naming: ["kernel '\(kernel)'", "may not be read"],
            through: try anotherUser())
        try expect(
            .notPermitted, ["run", "--kernel", "kernel", "--initrd", "secret"], naming: ["initrd 'secret'"],
            through: try anotherUser())
    }

    @Test func anInitrdThatDoesNotFit() throws {
        scratch.file("kernel", BrokenKernels.elf())
        scratch.sparse("initrd", 65 << 20)
        try expect(
            .badConfiguration, ["run", "--kernel", "kernel", "--initrd", "initrd", "--memory", "64M"],
            naming: ["initrd", "--memory"])
        scratch.sparse("initrd", 1 << 40)
        try expect(
            .badConfiguration, ["run", "--kernel", "kernel", "--initrd", "initrd", "--memory", "64M"],
            naming: ["initrd", "--memory"])
    }

    @Test func commandLinesNoKernelTakes() throws {
        scratch.file("kernel", BrokenKernels.elf())
        let long = String(repeating: "x", count: 5000)
        try expect(.badConfiguration, ["run", "--kernel", "kernel", "--append", long], naming: ["--append", "bytes"])
        try expect(.badConfiguration, ["run", "--kernel", "kernel", "--append", "a\u{1}b"], naming: ["--append"])
        // To the built-in guest as well, which is no Linux: the limit is the loader's.
        try expect(
            .badConfiguration, ["run", "--append", String(repeating: "x", count: 100_000)], naming: ["--append", "bytes"])
    }

    // MARK: Numbers and words

    @Test(arguments: ["0", "0M", "1023K", "1025K", "4097T", "8388608T", "99999999999999999999T"])
    func memoryNoMachineHas(size: String) throws {
        try expect(.badConfiguration, ["run", "--memory", size], naming: ["memory", "give"])
    }

    @Test(arguments: ["", "-1", "-1G", "1", "512", "1.5G", "1GB", "all", "0x10M"])
    func memoryThatIsNoSize(size: String) throws {
        try expect(.usage, ["run", "--memory", size], naming: ["--memory", size])
    }

    @Test func moreMemoryThanTheHostHas() throws {
        let physical = try #require(HostFacts.physicalMemory())
        try expect(
            .badConfiguration, ["run", "--memory", "\((physical >> 20) + 1)M"], naming: ["this host's", "give the guest less"])
    }

    @Test(arguments: ["0", "255", "1000", "99999999999999999999"])
    func cpusNoMachineHas(count: String) throws {
        try expect(.badConfiguration, ["run", "--cpus", count], naming: [count, "--cpus", "254"])
    }

    @Test(arguments: ["", "-1", "two", "1.5", "0x2"])
    func cpusThatAreNoNumber(count: String) throws {
        try expect(.usage, ["run", "--cpus", count], naming: ["--cpus", "'\(count)'"])
    }

    @Test(arguments: ["0", "0s", "0.0001ms0", "-1s", "1d", "", "1e3s", "forever", "8761h"])
    func timesThatAreNone(time: String) throws {
        let status: ExitStatus = ["0", "0s", "8761h"].contains(time) ? .badConfiguration : .usage
        try expect(status, ["run", "--timeout", time], naming: ["--timeout", time])
    }

    @Test(arguments: [
        ["frob"], ["exec"], ["run", "--frob"], ["run", "-Z"], ["run", "a", "b"], ["run", "linux", "--kernel", "k"],
        ["run", "--share", ".,frob"], ["run", "--disk", "x,frob"], ["run", "--net", "bridge"], ["run", "--vsock", "v,cid=1"],
        ["run", "--transport", "usb"],
        ["run", "--engine", "tcg"], ["run", "--irqchip", "off"], ["run", "--huge-pages", "2M"], ["run", "--console", "pty"],
        ["run", "--console", "file:"], ["run", "--stats", ""], ["run", "--kernel", ""], ["run", ""], ["run", "--initrd", "i"],
        ["run", "--cpus"], ["run", "--timeout"], ["doctor", "now"], ["images", "frob"], ["images", "fetch"], ["images", "make", "debian", "--frob"],
    ])
    func whatCannotBeUnderstood(words: [String]) throws {
        let named: [String] =
            switch words {
            case ["images", "fetch"]: ["hover images fetch --help"]
            case ["run", ""]: ["IMAGE"]
            default: [words.last { $0.hasPrefix("--") }.map { String($0.prefix { $0 != "=" }) } ?? words.last ?? ""]
            }
        try expect(.usage, words, naming: named)
    }

    @Test func imagesThatAreNot() throws {
        for words in [["fetch", "frob"], ["path", "frob"]] {
            try expect(.noSuchFile, ["images"] + words, naming: ["'frob'", "linux"])
        }
        try expect(.noSuchFile, ["images", "path", "linux"], naming: ["hover images fetch linux"])
    }

    @Test func disksThatCannotBeMade() throws {
        scratch.file("there", [1])
        scratch.file("script", Array("true\n".utf8))
        let make = ["images", "make"]
        try expect(.usage, make, naming: ["hover images make --help"])
        try expect(.noSuchFile, make + ["frob"], naming: ["'frob'", "debian", "small"])
        for size in ["", "2", "1.5G", "-1G"] {
            try expect(.usage, make + ["small", "--size", size], naming: ["--size", "'\(size)'"])
        }
        try expect(.badConfiguration, make + ["small", "--size", "1M"], naming: ["--size", "4M"])
        try expect(.usage, make + ["debian", "--packages", "curl,,git"], naming: ["--packages", "''"])
        try expect(.usage, make + ["debian", "--packages", "curl,-oDir=/"], naming: ["--packages", "'-oDir=/'"])
        try expect(.usage, make + ["debian", "--script", "script"], naming: ["--script", "small"])
        try expect(.usage, make + ["small", "--packages", "curl"], naming: ["--packages", "debian"])
        try expect(.usage, make + ["small", "--output", ""], naming: ["--output"])
        try expect(.noSuchFile, make + ["small", "--script", "missing"], naming: ["script 'missing'"])
        try expect(.noSuchFile, ["images", "path", "debian"], naming: ["hover images make debian"])
    }

    /// Where the disk is to go is looked at first, not after minutes of work.
    @Test func disksThatCannotBePutThere() throws {
        scratch.file("there", [1])
        mkdir(scratch.path + "/directory", 0o755)
        for (path, status, reason) in [
            ("there", ExitStatus.badConfiguration, "--replace"), ("missing/disk", .noSuchFile, "No such file"),
            ("there/below", .noSuchFile, "Not a directory"),
        ] {
            let result = try HoverProcess.run(
                ["images", "make", "debian", "--output", path], in: scratch.path,
                variables: ["XDG_CACHE_HOME": scratch.path + "/cache", "HOME": scratch.path])
            #expect(result.status == status.rawValue, "\(path): \(result.errors)")
            #expect(result.errors.contains("'\(path)'") && result.errors.contains(reason), "\(path): \(result.errors)")
        }
        #expect(scratch.contents.map { $0.prefix { $0 != " " } } == ["directory", "there"])
    }

    // MARK: Files to write

    @Test func filesThatCannotBeWritten() throws {
        scratch.file("kept", Array("kept".utf8))
        mkfifo(scratch.path + "/pipe", 0o644)
        for (path, status, reason) in [
            ("missing/file", ExitStatus.noSuchFile, "No such file"), ("kept/below", .noSuchFile, "Not a directory"),
            (".", .badConfiguration, "directory"), ("pipe", .badConfiguration, "'pipe'"),
        ] {
            try expect(status, ["run", "--stats", path], naming: ["statistics", "'\(path)'", reason, "--stats"])
            try expect(status, ["run", "--console", "file:" + path], naming: ["console", "'\(path)'", "--console"])
        }
        let owned = scratch.file("owned", Array("owned".utf8), mode: 0o644)
        let someone = try anotherUser()
        try expect(.notPermitted, ["run", "--stats", owned], naming: ["'\(owned)'", "--stats"], through: someone)
        try expect(.notPermitted, ["run", "--stats", "new"], naming: ["'new'", "--stats"], through: someone)
    }

    @Test func aRunThatNeverStartsLeavesItsFilesAlone() throws {
        scratch.file("broken", [1, 2, 3])
        scratch.file("results", Array("of the last run".utf8))
        for console in ["results", "new"] {
            try expect(
                .badConfiguration, ["run", "--kernel", "broken", "--console", "file:\(console)", "--stats", "results"],
                naming: ["broken"])
        }
    }

    /// The words that run what follows as a user who owns nothing; the test's own where it is not root.
    func anotherUser() throws -> [String] {
        guard geteuid() == 0 else { return [] }
        let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        guard try HoverProcess.run(["--version"], through: words).status == 0 else {
            try Test.cancel("another user cannot run \(HoverProcess.path)")
        }
        return words
    }
}
