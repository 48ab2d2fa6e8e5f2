import Foundation
import Testing

extension SlowTiers {
    /// `--clock instructions`: two runs of a guest are identical to the last byte.
    @Suite(.serialized) struct InstructionClockTests {
        @Test(arguments: ["pit", "pm-timer", "rtc", "pic"]) func twoRunsPrintTheSame(_ name: String) async throws {
            try await GuestBuild.ready()
            let program = try #require(GuestProgram.all.first { $0.name == name })
            func run() async throws -> ChildResult {
                try await Hover.run(
                    ["--engine", "interpreter", "--clock", "instructions"] + program.options
                        + ["--timeout", "60s", "\(GuestBuild.directory)/\(program.image).img"],
                    input: program.input, deadline: 90)
            }
            let first = try await run()
            let second = try await run()
            #expect(first.status == program.status, "\(first.summary)")
            #expect(!first.output.isEmpty && first.output == second.output && first.status == second.status)
        }

        @Test func severalCPUsAndKVMAreRefused() async throws {
            let several = try await Hover.run(["--clock", "instructions", "--cpus", "2"], deadline: 30)
            #expect(several.status == 65 && several.error.contains("give --cpus 1"), "\(several.summary)")
            let kvm = try await Hover.run(["--clock", "instructions", "--engine", "kvm"], deadline: 30)
            #expect(kvm.status == 65 && kvm.error.contains("--engine interpreter"), "\(kvm.summary)")
        }
    }
}
