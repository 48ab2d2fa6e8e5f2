import Testing

@testable import Windhover

/// The error that a closure throws, or nil.
func failure<Failure: Error>(_ body: () throws(Failure) -> some Any) -> Failure? {
    do {
        _ = try body()
        return nil
    } catch { return error }
}

@Suite struct MemorySizeTests {
    @Test(arguments: [
        ("512M", 512 << 20), ("512MiB", 512 << 20), ("512mib", 512 << 20), ("1G", 1 << 30), ("2GiB", 2 << 30),
        ("65536K", 64 << 20), ("1028k", 1028 << 10), ("1T", 1 << 40), ("0001G", 1 << 30), ("1M", 1 << 20),
    ] as [(String, UInt64)])
    func reads(text: String, bytes: UInt64) throws {
        #expect(try MemorySize(text).bytes == bytes)
    }

    @Test(arguments: ["", "M", "12Q", "-1G", "1.5G", "1 G", "0x10M", "512MB", "G1", "１G", "1Gi", "+1G"])
    func refusesOtherForms(text: String) throws {
        let error = try #require(failure { () throws(ConfigurationError) in try MemorySize(text) })
        #expect(error.exitStatus == .usage)
        #expect(error.description.contains("'\(text)'"))
        #expect(!error.description.contains("\n"))
    }

    @Test func aBareNumberIsToldWhatToSay() throws {
        let error = try #require(failure { () throws(ConfigurationError) in try MemorySize("512") })
        #expect(error.exitStatus == .usage)
        #expect(error.description.contains("512M"))
    }

    @Test(arguments: [
        "0", "0M", "0G", "000", "512K", "1025K", "1027K", "8388608T", "16777216T", "18446744073709551615T",
        "99999999999999999999999G",
    ])
    func refusesTheImpossible(text: String) throws {
        let error = try #require(failure { () throws(ConfigurationError) in try MemorySize(text) })
        #expect(error.exitStatus == .badConfiguration)
        #expect(!error.description.contains("\n"))
    }

    @Test func moreThanTheHostHas() throws {
        let size = try MemorySize("4G")
        try size.check(againstHost: 4 << 30)
        let error = try #require(
            failure { () throws(ConfigurationError) in try size.check(againstHost: (4 << 30) - 4096) })
        #expect(error.exitStatus == .badConfiguration)
        #expect(error.description.contains("4G"))
    }

    @Test func describesItselfSoThatItReadsBack() throws {
        for text in ["512M", "1G", "1028K", "3T"] { #expect(try MemorySize(text).description == text) }
        #expect(try MemorySize("1024M").description == "1G")
    }

    @Test(arguments: [
        (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2047, "1.9 KiB"), (1 << 20, "1 MiB"),
        (UInt64.max, "15.9 EiB"), (150 << 20 | 1 << 19, "150 MiB"),
    ] as [(UInt64, String)])
    func byteCounts(bytes: UInt64, text: String) {
        #expect(ByteCount.text(bytes) == text)
    }
}

@Suite struct TimeLimitTests {
    @Test(arguments: [
        ("30s", 30_000), ("500ms", 500), ("5m", 300_000), ("2h", 7_200_000), ("1.5s", 1500), ("10", 10_000),
        ("0.0001s", 1), ("8760h", 365 * 24 * 3_600_000),
    ] as [(String, UInt64)])
    func reads(text: String, milliseconds: UInt64) throws {
        #expect(try TimeLimit(text).milliseconds == milliseconds)
    }

    @Test(arguments: ["", "s", "-1s", "1d", "1e3s", "nan", "inf", "1..5s", "0x1s", "1 s", "."])
    func refusesOtherForms(text: String) throws {
        let error = try #require(failure { () throws(ConfigurationError) in try TimeLimit(text) })
        #expect(error.exitStatus == .usage)
        #expect(error.description.contains("'\(text)'"))
    }

    @Test(arguments: ["0s", "0", "0.0ms", "8761h", "99999999999999999999999999h"])
    func refusesTheImpossible(text: String) throws {
        let error = try #require(failure { () throws(ConfigurationError) in try TimeLimit(text) })
        #expect(error.exitStatus == .badConfiguration)
    }

    @Test func describesItself() throws {
        for text in ["1.5s", "30s", "250ms", "1.005s"] { #expect(try TimeLimit(text).description == text) }
    }
}

@Suite struct RunConfigurationTests {
    func options(_ change: (inout RunOptions) -> Void) -> RunOptions {
        var options = RunOptions()
        change(&options)
        return options
    }

    func error(_ change: (inout RunOptions) -> Void) -> ConfigurationError? {
        failure { () throws(ConfigurationError) in try RunConfiguration(options(change)) }
    }

    @Test func defaultsBootTheBuiltInGuest() throws {
        let configuration = try RunConfiguration(RunOptions())
        #expect(configuration.source == .builtIn)
        #expect(configuration.memory.bytes == 512 << 20)
        #expect(configuration.cpus == 1)
        #expect(configuration.engine == .auto)
        #expect(configuration.interruptChips == .kernel)
        #expect(configuration.console == .standardIO)
        #expect(configuration.timeout == nil)
        #expect(configuration.append.isEmpty)
        #expect(!configuration.noReboot)
    }

    @Test func sources() throws {
        #expect(try RunConfiguration(options { $0.image = "linux" }).source == .image("linux"))
        #expect(try RunConfiguration(options { $0.image = "./linux" }).source == .file("./linux"))
        #expect(try RunConfiguration(options { $0.kernel = "linux" }).source == .file("linux"))
        #expect(error { $0.image = "linux"; $0.kernel = "vmlinux" }?.exitStatus == .usage)
        #expect(error { $0.image = "" }?.exitStatus == .usage)
        #expect(error { $0.kernel = "" }?.exitStatus == .usage)
        #expect(error { $0.image = "linux"; $0.initrd = "" }?.exitStatus == .usage)
        #expect(error { $0.initrd = "root.cpio" }?.exitStatus == .usage)
    }

    @Test func appendedWordsAreJoined() throws {
        #expect(try RunConfiguration(options { $0.append = ["quiet", "a=b c"] }).append == "quiet a=b c")
        #expect(error { $0.append = ["a\0b"] }?.exitStatus == .usage)
    }

    @Test(arguments: ["0", "255", "1000", "99999999999999999999"])
    func cpusOutOfRange(text: String) {
        let error = error { $0.cpus = text }
        #expect(error?.exitStatus == .badConfiguration)
        #expect(error?.description.contains(text) == true)
    }

    @Test(arguments: ["", "-1", "two", "1.5", "0x2", " 1"])
    func cpusOfOtherForms(text: String) {
        #expect(error { $0.cpus = text }?.exitStatus == .usage)
    }

    @Test func wordsThatAreNoChoice() {
        let engine = error { $0.engine = "tcg" }
        #expect(engine?.exitStatus == .usage)
        #expect(engine?.description == "--engine takes auto, kvm or interpreter, not 'tcg'")
        #expect(error { $0.interruptChips = "on" }?.exitStatus == .usage)
        #expect(error { $0.hugePages = "2M" }?.exitStatus == .usage)
        #expect(error { $0.decompression = "" }?.exitStatus == .usage)
        #expect(error { $0.statistics = "" }?.exitStatus == .usage)
    }

    @Test func consoles() throws {
        #expect(try ConsoleTarget("stdio") == .standardIO)
        #expect(try ConsoleTarget("none") == .none)
        #expect(try ConsoleTarget("file:/tmp/a:b") == .file("/tmp/a:b"))
        for text in ["file:", "pty", "", "STDIO"] {
            #expect(failure { () throws(ConfigurationError) in try ConsoleTarget(text) }?.exitStatus == .usage)
        }
    }
}
