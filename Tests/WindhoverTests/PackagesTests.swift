import Glibc
import Testing

@testable import Windhover

@Suite struct AptProgressTests {
    let lines = "dlstatus:1:0.0000:Retrieving file 1 of 2\npmstatus:x:99:no\ndlstatus:2:42.5:Retrieving file 2 of 2\n"

    @Test func linesCutAnywhere() {
        let bytes = Array(lines.utf8)
        for cut in 0...bytes.count {
            var progress = AptProgress()
            progress.feed(Array(bytes[..<cut]))
            progress.feed(Array(bytes[cut...]))
            #expect(progress.fraction == 0.425, "cut at \(cut)")
        }
    }

    @Test func nonsenseIsPassedOver() {
        var progress = AptProgress()
        for text in ["\n", "dlstatus\n", "dlstatus:1:nan:x\n", "dlstatus:1:inf:x\n", "dlstatus:1::x\n", ":::\n"] {
            progress.feed(Array(text.utf8))
            #expect(progress.fraction == 0)
        }
        progress.feed(Array("dlstatus:1:1e300:x\n".utf8))
        #expect(progress.fraction == 1)
        progress.feed(Array("dlstatus:1:-5:x\n".utf8))
        #expect(progress.fraction == 1)
    }

    @Test func aLineWithoutEndDoesNotGrow() {
        var progress = AptProgress()
        for _ in 0..<100 { progress.feed([UInt8](repeating: 0x61, count: 10_000)) }
        progress.feed(Array("\ndlstatus:1:50:x\n".utf8))
        #expect(progress.fraction == 0.5)
    }
}

@Suite struct DebianPackagesTests {
    let hash = String(repeating: "3d", count: 32)

    @Test func addresses() throws {
        let text = "Some words\n'http://h/pool/busybox-static_1.35_amd64.deb' busybox-static_1%3a1.35.0-4+b1_amd64.deb 928188 SHA256:\(hash)\n"
        let offer = try #require(DebianPackages.offer(inAddresses: text, name: "busybox-static"))
        #expect(offer.version == "1:1.35.0-4+b1")
        #expect(offer.size == 928188)
        #expect(offer.sha256 == hash)
        #expect(offer.fileName == "busybox-static_1%3a1.35.0-4+b1_amd64.deb")
        #expect(offer.address == "http://h/pool/busybox-static_1.35_amd64.deb")
    }

    @Test func addressesThatMakeNoSense() {
        for line in [
            "", "'", "''", "'u' x_1_amd64.deb 1", "'u' x_1_amd64.deb 1 MD5Sum:\(hash)", "'u' x_1_amd64.deb -1 SHA256:\(hash)",
            "'u' ../x_1_amd64.deb 1 SHA256:\(hash)", "'u' y_1_amd64.deb 1 SHA256:\(hash)", "'u' x_1_amd64.deb 1 SHA256:12",
            "'u' x_1 1 SHA256:\(hash)", "'u' x_1_amd64.deb 1 SHA256:" + String(repeating: "zz", count: 32),
        ] { #expect(DebianPackages.offer(inAddresses: line, name: "x") == nil, "\(line)") }
    }

    @Test func dependencies() {
        func find(_ text: String) -> String? { DebianPackages.dependency(inControl: text, prefix: "linux-image-") }
        #expect(find("Package: a\nDepends: libc6, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n") == "linux-image-6.1.0-56-cloud-amd64")
        #expect(find("Depends: linux-image-6.1:amd64 | linux-image-6.1-unsigned\n") == "linux-image-6.1")
        #expect(find("Recommends: linux-image-6.1\n") == nil)
        #expect(find("Depends:\n") == nil)
        #expect(find("") == nil)
    }

    @Test func reasonsAreOneLine() {
        #expect(DebianPackages.reason(in: "W: one\nE: two\n  more\n") == "two")
        #expect(DebianPackages.reason(in: "W: one\twide\n") == "one wide")
        #expect(DebianPackages.reason(in: "plain\nwords") == "plain")
        #expect(DebianPackages.reason(in: "\n") == "no reason was given")
        #expect(DebianPackages.reason(in: "E: " + String(repeating: "x", count: 5000)).count < 400)
    }
}

@Suite struct HostCommandTests {
    @Test func outputErrorsAndStatus() throws {
        let result = try HostCommand(["sh", "-c", "echo out; echo err >&2; exit 3"]).run()
        #expect(result.text == "out\n")
        #expect(result.errorText == "err\n")
        #expect(result.status == 3)
    }

    @Test func aCommandThatIsCancelledIsEnded() throws {
        var command = HostCommand(["sleep", "30"])
        let end = ContinuousClock.now + .milliseconds(200)
        command.isCancelled = { ContinuousClock.now > end }
        let began = ContinuousClock.now
        #expect(try command.run().status == 128 + SIGTERM)
        #expect(ContinuousClock.now - began < .seconds(10))
    }

    @Test func aSignalIsAStatus() throws {
        #expect(try HostCommand(["sh", "-c", "kill -9 $$"]).run().status == 137)
        #expect(try HostCommand(["sh", "-c", "exit 130"]).run().interrupted)
    }

    @Test func theStatusDescriptor() throws {
        var command = HostCommand(["sh", "-c", "echo one >&3; echo two >&3; echo out"])
        var status: [UInt8] = []
        command.onStatus = { status += $0 }
        #expect(try command.run().text == "out\n")
        #expect(String(decoding: status, as: UTF8.self) == "one\ntwo\n")
    }

    @Test(.timeLimit(.minutes(1))) func outputPastTheLimitIsDropped() throws {
        var command = HostCommand(["sh", "-c", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2"])
        command.outputLimit = 1000
        let result = try command.run()
        #expect(result.status == 0)
        #expect(result.output.count == 1000)
        #expect(result.errors.count == 64 << 10)
    }

    @Test func placeLanguageAndInput() throws {
        let directory = TemporaryDirectory()
        var command = HostCommand(["sh", "-c", "pwd; echo $LC_ALL; cat"])
        command.workingDirectory = directory.path
        #expect(try command.run().text == "\(directory.path)\nC.UTF-8\n")
    }

    @Test func aProgramThatIsNotThere() {
        let error = #expect(throws: HostCommand.Failure.self) { try HostCommand(["no-such-program-here"]).run() }
        #expect(error == .notFound("no-such-program-here"))
    }
}
