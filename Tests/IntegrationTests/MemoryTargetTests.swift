import Foundation
import Testing

@testable import Windhover

extension SlowTiers {
    /// A guest that gives up memory, and has it back.
    @Suite(.serialized, .timeLimit(.minutes(10))) struct MemoryTargetTests {
        private static let mebibyte: UInt64 = 1 << 20

        /// Bytes of the guest's memory that this process holds: all that it holds, but for what is not the guest's.
        private func resident(_ machine: VirtualMachine) throws -> UInt64 {
            let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
            let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") })
            let all = try #require(line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { UInt64($0) })
            let outside = try machine.running().machine.residentKiB
            return (all > outside ? all - outside : 0) << 10
        }

        /// A guest whose caches fill its memory makes do with half of it, the other half is the host's meanwhile, and then it fills all of
        /// it again.
        @Test(arguments: [EngineChoice.interpreter, .kvm]) func halfTheMemoryGoesAndComesBack(engine: EngineChoice) async throws {
            if engine == .kvm, FileManager.default.fileExists(atPath: "/sys/module/kvm_pvm") {
                try Test.cancel("this host's KVM emulates a guest's kernel: Debian's would take a quarter of an hour to come up")
            }
            let path = NSTemporaryDirectory() + "windhover-memory-\(UUID().uuidString.prefix(8))"
            defer { try? FileManager.default.removeItem(atPath: path) }
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            let portion = Data((0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 37 ^ $0 >> 7) })
            #expect(FileManager.default.createFile(atPath: path + "/big", contents: nil))
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path + "/big"))
            for _ in 0..<360 { try file.write(contentsOf: portion) }
            try file.close()

            var configuration = VirtualMachineConfiguration()
            configuration.engine = engine
            configuration.memory = try MemorySize("512M")
            configuration.hasBalloon = true
            configuration.shares = [.init(directory: path, path: "/mnt", isReadOnly: true)]
            do { try configuration.checkEngine() } catch { try Requirement.missing("kvm", "\(error)") }
            let machine = try VirtualMachine(configuration)
            try await machine.start()
            #expect(machine.memoryTarget == configuration.memory)
            let start = try await machine.memoryStatistics()
            #expect(start.size == 512 * Self.mebibyte && (start.total ?? 0) > 400 * Self.mebibyte)
            #expect((start.available ?? 0) > 360 * Self.mebibyte, "\(start)")

            #expect(try await machine.shell("cat /mnt/big > /dev/null").isSuccess)
            let full = try resident(machine)
            #expect(full > 380 * Self.mebibyte, "\(full) bytes")
            let cached = try await machine.memoryStatistics()
            #expect((cached.caches ?? 0) > 300 * Self.mebibyte, "\(cached)")

            try await machine.setMemoryTarget(MemorySize("256M"))
            #expect(machine.memoryTarget == (try MemorySize("256M")))
            // What is in the balloon is not here: what is left is no more than what is outside of it, and some that is being put there.
            let half = try resident(machine)
            #expect(half <= 264 * Self.mebibyte, "\(half) bytes, of \(full) before")
            let small = try await machine.memoryStatistics()
            #expect(small.size == 256 * Self.mebibyte)
            #expect((small.available ?? .max) < 256 * Self.mebibyte, "\(small)")
            #expect(try await machine.run("true").isSuccess)

            // All of it is of use again: a file that half of it could not hold, as it was on the host.
            try await machine.setMemoryTarget(MemorySize("512M"))
            #expect(machine.memoryTarget == configuration.memory)
            #expect(try await machine.memoryStatistics().size == 512 * Self.mebibyte)
            let copied = try await machine.shell("mount -t tmpfs -o size=100% none /tmp && cp /mnt/big /tmp/big && cmp /mnt/big /tmp/big")
            #expect(copied.isSuccess, "\(copied.errorOutput)")
            let again = try resident(machine)
            #expect(again > 360 * Self.mebibyte, "\(again) bytes")
            let counts = try #require(await machine.statistics()?.devices.first { $0.kind == "balloon" }?.counts)
            #expect(counts["bytesInflated"] ?? 0 >= 256 * Self.mebibyte && counts["bytesDeflated"] ?? 0 >= 256 * Self.mebibyte, "\(counts)")

            // More than it can spare is not to be had, and harms nothing; a target of more than it has is none.
            await #expect(throws: VirtualMachineError.timedOut(waitingFor: "a guest that makes do with 1M")) {
                try await machine.setMemoryTarget(MemorySize("1M"), within: .seconds(3))
            }
            await #expect(throws: ConfigurationError.self) { try await machine.setMemoryTarget(MemorySize("513M")) }
            #expect(machine.memoryTarget == (try MemorySize("1M")))
            try await machine.setMemoryTarget(configuration.memory)
            #expect(try await machine.run("cmp", "/mnt/big", "/tmp/big").isSuccess)
            await machine.stop()
        }

        @Test func aMachineWithoutABalloonKeepsItsMemory() async throws {
            var configuration = VirtualMachineConfiguration()
            configuration.engine = .interpreter
            configuration.memory = try MemorySize("128M")
            let machine = try VirtualMachine(configuration)
            try await machine.start()
            await #expect(throws: VirtualMachineError.noBalloon) { try await machine.setMemoryTarget(MemorySize("64M")) }
            await #expect(throws: VirtualMachineError.noBalloon) { _ = try await machine.memoryStatistics() }
            #expect(machine.memoryTarget == nil)
            await machine.stop()
        }
    }
}
