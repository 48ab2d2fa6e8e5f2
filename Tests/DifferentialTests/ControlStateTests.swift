import Testing
import MonitorTesting

/// Privileged programs: what makes them, what compares them, and that the interpreter's answers depend on nothing else.
/// The comparison with a processor is VirtualHostTests'.
@Suite struct ControlStateTests {
    private static func machine(_ reference: ControlReference = .exact) throws -> ControlMachine {
        try ControlMachine(.interpreter(localAPICs: false), reference: reference)
    }

    @Test func aSeedRepeatsItsPrograms() {
        let generator = ControlGenerator(seed: 7)
        let listings = (0..<60).map { generator.program($0).listing }
        #expect((0..<60).reversed().map { ControlGenerator(seed: 7).program($0).listing }.reversed() == listings)
        #expect(ControlGenerator(seed: 8).program(3).listing != listings[3])
        #expect(Set(listings).count == 60)
    }

    @Test func everyKindIsDrawn() {
        let generator = ControlGenerator(seed: 1)
        var kinds: [ControlItem: Int] = [:]
        var traits: Set<ControlProgram.Trait> = []
        var modes: Set<ControlProgram.Mode> = []
        var comparable = 0
        for number in 0..<2000 {
            let program = generator.program(number)
            for kind in program.kinds { kinds[kind, default: 0] += 1 }
            traits.formUnion(program.traits)
            modes.insert(program.mode)
            #expect(!program.kinds.isEmpty && program.items.count <= 8)
            if ControlReference.qemu.omission(of: program) == nil { comparable += 1 }
        }
        for kind in ControlItem.allCases { #expect(kinds[kind, default: 0] >= 10, "\(kind)") }
        // The rarest is one in some thousands.
        var number = 2000
        while traits.count < ControlProgram.Trait.allCases.count, number < 40000 {
            traits.formUnion(generator.program(number).traits)
            number += 1
        }
        for trait in ControlProgram.Trait.allCases { #expect(traits.contains(trait), "\(trait)") }
        #expect(modes.count == ControlProgram.Mode.allCases.count)
        #expect(comparable > 1000)
    }

    /// Whatever ran before on the same vCPU; and every program comes to an end, most of them not to a shutdown.
    @Test func anOutcomeDependsOnTheProgramAlone() throws {
        let generator = ControlGenerator(seed: 3)
        let programs = (0..<400).map(generator.program)
        let forwards = try Self.machine()
        let outcomes = try programs.map { try forwards.run($0) }
        let backwards = try Self.machine()
        for index in programs.indices.reversed() {
            let again = try backwards.run(programs[index])
            #expect(again == outcomes[index], "\(programs[index].listing)")
        }
        let endings = outcomes.map { $0["end"] ?? "" }
        for (program, ending) in zip(programs, endings) {
            #expect(UInt8(ending, radix: 16) != nil || ending == "shutdown", "\(ending): \(program.listing)")
        }
        #expect(endings.filter { $0 == "f0" }.count > 40)
        #expect(endings.filter { $0 == "d" }.count > 40)
        #expect(endings.contains("8") && endings.contains("e") && endings.contains("shutdown"))
        #expect(endings.filter { $0 == "shutdown" }.count < 80)
    }

    @Test func linesAreReadBack() throws {
        let generator = ControlGenerator(seed: 4)
        let machine = try Self.machine()
        for number in 0..<100 {
            let outcome = try machine.run(generator.program(number))
            let line = ControlReport.line(number, outcome)
            let read = try #require(ControlReport.read(line))
            #expect(read.number == number)
            #expect(read.outcome == outcome)
            #expect(outcome.differences(from: read.outcome).isEmpty)
            // One digit of it otherwise.
            let last = try #require(line.last)
            #expect(ControlReport.read(line.dropLast() + (last == "0" ? "1" : "0")) == nil)
        }
        for text in ["", "1", "1 0", "x 00000000 end=6", "1 00000000 end=6", "1 0 end"] { #expect(ControlReport.read(text) == nil) }
    }

    @Test func aWrongStateIsNoticed() throws {
        let outcome = try #require(ControlOutcome("end=d rip=2036 ss=0:unusable @47d8=1410"))
        for wrong in ["end=e rip=2036 ss=0:unusable @47d8=1410", "end=d rip=2036 ss=0:unusable", "end=d rip=2036 ss=0:unusable @47d8=1411"] {
            let other = try #require(ControlOutcome(wrong))
            #expect(other.digest != outcome.digest)
            #expect(other.differences(from: outcome).count == 1)
        }
        #expect(ControlOutcome("end=d rip=2036 ss=0:unusable")?.differences(from: outcome) == ["@47d8: as before, not 1410"])
    }

    /// What a reference leaves out is in the outcome where nothing is left out, and is not the whole of it.
    @Test func quirksAreNarrow() throws {
        let generator = ControlGenerator(seed: 5)
        let exact = try Self.machine()
        let emulated = try Self.machine(.qemu)
        var changed = 0
        for number in 0..<200 {
            let program = generator.program(number)
            let one = try exact.run(program)
            let other = try emulated.run(program)
            if one == other { continue }
            changed += 1
            // Registers are never touched.
            #expect(one.fields.filter { !$0.name.hasPrefix("@") } == other.fields.filter { !$0.name.hasPrefix("@") })
        }
        #expect(changed > 0)
    }
}
