import Foundation
import Testing
import Windhover
import WindhoverTesting

/// The program that was built, beside the tests' own. The guest's root is the host's, so it is there too.
private let program: String = {
    let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("address").path
}()

/// One kernel for all of these: they leave each other alone, and each has an interface's address of its own.
@Suite(.guest { $0.engine = .interpreter; $0.memory = try MemorySize("256M") }) struct AddressTests {
    @Test func anAddressIsAdded() async throws {
        let guest = try Guest.current
        let added = try await guest.run(program, "add", "lo", "192.0.2.1/24")
        #expect(added.isSuccess, "\(added.errorOutput)")
        let listed = try await guest.run(program, "list")
        #expect(listed.output.split(separator: "\n").contains("lo 192.0.2.1/24"))
        // The kernel's own word for it.
        #expect(try await guest.run("cat", "/proc/net/fib_trie").output.contains("192.0.2.1"))
    }

    @Test func anAddressIsAddedOnce() async throws {
        let guest = try Guest.current
        #expect(try await guest.run(program, "add", "lo", "198.51.100.1/24").isSuccess)
        let again = try await guest.run(program, "add", "lo", "198.51.100.1/24")
        #expect(again.status == 1 && again.errorOutput == "address: File exists\n")
    }

    @Test func nobodyMayAddOne() async throws {
        var options = CommandOptions()
        options.user = "nobody"
        let result = try await Guest.current.run([program, "add", "lo", "203.0.113.1/24"], options)
        #expect(result.status == 1 && result.errorOutput == "address: Operation not permitted\n")
    }

    @Test(arguments: [("nowhere", "192.0.2.9/24", "there is no interface 'nowhere'"), ("lo", "192.0.2/24", "'192.0.2/24' is no A.B.C.D/PREFIX")])
    func whatMakesNoSenseIsRefused(interface: String, address: String, reason: String) async throws {
        let result = try await Guest.current.run(program, "add", interface, address)
        #expect(result.status == 1 && result.errorOutput == "address: \(reason)\n")
    }

    /// A file system that nothing of the host's is in danger of.
    @Test(.timeLimit(.minutes(2))) func aFullFileSystemIsTold() async throws {
        let guest = try Guest.current
        let full = try await guest.shell("mkdir -p /run/small && mount -t tmpfs -o size=64k none /run/small && head -c 1000000 /dev/zero > /run/small/file")
        #expect(!full.isSuccess && full.errorOutput.contains("No space left on device"))
        #expect(try await guest.run("stat", "-c", "%s", "/run/small/file").output == "65536\n")
    }
}

/// What changes a kernel for good gets one of its own.
@Suite(.guest(sharing: .test) { $0.engine = .interpreter; $0.memory = try MemorySize("256M") }) struct OneKernelEachTests {
    @Test(arguments: [1, 2]) func nothingIsLeftOfAnotherTest(number: Int) async throws {
        let guest = try Guest.current
        #expect(try await guest.run(program, "list").output == "lo 127.0.0.1/8\n")
        #expect(try await guest.run(program, "add", "lo", "192.0.2.\(number)/32").isSuccess)
    }

    /// A kernel that dies is an error with its last words, not a hang.
    @Test func aPanicIsAnError() async throws {
        let guest = try Guest.current
        await #expect { try await guest.shell("echo c > /proc/sysrq-trigger; sleep 60") } throws: { error in
            (error as? GuestFailure)?.kind == .panicked
        }
    }
}
