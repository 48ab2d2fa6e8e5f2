import Foundation
import Testing

/// Where a guest of this tier runs: an engine, and who serves its interrupt controllers.
struct GuestEngine: Hashable, Sendable {
    /// As in WINDHOVER_REQUIRE_ENGINES.
    var engine: String
    var interruptChips: String?

    var name: String { interruptChips.map { "\(engine), \($0) interrupt controllers" } ?? engine }
    var options: [String] { ["--engine", engine] + (interruptChips.map { ["--irqchip", $0] } ?? []) }

    static let all = [
        GuestEngine(engine: "kvm", interruptChips: "kernel"), GuestEngine(engine: "kvm", interruptChips: "split"),
        GuestEngine(engine: "interpreter"),
    ]
}

/// The command under test, as the package's build made it.
enum Hover {
    static let path: String = {
        // Beside the test runner; where that is somewhere else, in the package's debug build.
        let runner = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let beside = (runner as NSString).deletingLastPathComponent + "/hover"
        return FileManager.default.isExecutableFile(atPath: beside) ? beside : Repository.root + "/.build/debug/hover"
    }()

    static func run(_ options: [String], input: [UInt8] = [], deadline: Double) async throws -> ChildResult {
        try await ChildProcess.run([path, "run"] + options, input: input, deadline: deadline)
    }
}

/// guests/out, built once for all who need it.
enum GuestBuild {
    static let directory = GuestProgram.directory + "/out"

    private static let build = Task { () -> String? in
        do {
            let result = try await ChildProcess.run([GuestProgram.directory + "/build"], deadline: 180)
            return result.status == 0 ? nil : "guests/build failed: \(result.summary)"
        } catch { return "\(error)" }
    }

    struct Failed: Error, CustomStringConvertible { var description: String }

    static func ready() async throws {
        if let problem = await build.value { throw Failed(description: problem) }
    }
}

extension SlowTiers {
    /// Every program of guests/, through the command as its users call it, on every engine that this host has.
    @Suite(.serialized) struct GuestTests {
        struct Row: Sendable, CustomTestStringConvertible {
            var engine: GuestEngine
            var program: GuestProgram
            var testDescription: String { "\(engine.name): \(program.name)" }
        }

        static let rows = GuestEngine.all.flatMap { engine in GuestProgram.all.map { Row(engine: engine, program: $0) } }

        /// Why an engine is not to be had here, from the command itself; nil where it is.
        private static let unavailable = Task { () -> [String: String] in
            var reasons: [String: String] = [:]
            for engine in Set(GuestEngine.all.map(\.engine)) {
                let options = ["--engine", engine, "--timeout", "10s", "\(GuestBuild.directory)/power-off.img"]
                do {
                    try await GuestBuild.ready()
                    let result = try await Hover.run(options, deadline: 30)
                    if let status = result.status, [69, 77].contains(status) {
                        reasons[engine] = result.error.trimmingCharacters(in: .whitespacesAndNewlines)
                    }
                } catch { reasons[engine] = "\(error)" }
            }
            return reasons
        }

        /// Whether this host's KVM emulates what guest kernels do, in place of running it: then an instruction may be
        /// one that its emulator lacks.
        private static let emulatesRing0 = FileManager.default.fileExists(atPath: "/sys/module/kvm_pvm")

        @Test(arguments: rows) func runs(_ row: Row) async throws {
            try await GuestBuild.ready()
            if let reason = await Self.unavailable.value[row.engine.engine] {
                try Requirement.missing(row.engine.engine, reason)
            }
            let program = row.program
            let options = row.engine.options + program.options + ["--timeout", program.timeout]
            let result = try await Hover.run(
                options + ["\(GuestBuild.directory)/\(program.image).img"], input: program.input, deadline: program.seconds + 15)
            if row.engine.engine == "kvm", Self.emulatesRing0, result.status == 70,
                result.error.contains("KVM could not emulate an instruction")
            {
                try Test.cancel("\(program.name): this host's KVM emulates ring 0 and lacks an instruction: \(result.error)")
            }
            #expect(result.status == program.status, "\(result.summary)")
            if let difference = program.expected.difference(from: result.output) {
                Issue.record("\(difference)\n\(result.summary)")
            }
        }

        @Test func thereAreGuests() {
            #expect(GuestProgram.all.count > 30)
            for program in GuestProgram.all { #expect(program.status >= 0, "\(program.name) has no status") }
        }

        /// Nothing of the place or the time of a build is in what it builds.
        @Test func buildsAreReproducible() async throws {
            try await GuestBuild.ready()
            let copy = FileManager.default.temporaryDirectory.appendingPathComponent("guests-\(UUID().uuidString)")
            defer { try? FileManager.default.removeItem(at: copy) }
            try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
            for name in try FileManager.default.contentsOfDirectory(atPath: GuestProgram.directory) where name != "out" {
                try FileManager.default.copyItem(
                    atPath: "\(GuestProgram.directory)/\(name)", toPath: copy.appendingPathComponent(name).path)
            }
            let built = try await ChildProcess.run([copy.appendingPathComponent("build").path], deadline: 180)
            try #require(built.status == 0, "\(built.summary)")
            let images = try FileManager.default.contentsOfDirectory(atPath: GuestBuild.directory).filter { $0.hasSuffix(".img") }
            #expect(Set(images).count == Set(GuestProgram.all.map(\.image)).count)
            for image in images + ["agent"] {
                let here = FileManager.default.contents(atPath: "\(GuestBuild.directory)/\(image)")
                let there = FileManager.default.contents(atPath: copy.appendingPathComponent("out/\(image)").path)
                #expect(here != nil && here == there, "\(image) differs between two builds")
            }
        }

        @Test func whatIsBuiltInIsWhatItsSourceBuilds() async throws {
            try await GuestBuild.ready()
            let result = try await ChildProcess.run([GuestProgram.directory + "/build", "--check"], deadline: 180)
            #expect(result.status == 0, "\(result.summary)")
        }
    }
}
