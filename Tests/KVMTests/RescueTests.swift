import Testing
import VMCore

@testable import KVM
@testable import MonitorTesting

/// KVM's side of a rescue, at an instruction that its emulator lacks wherever it runs: a vector operand in device space.
@Suite(.enabled(if: EngineFactory.kvm(.none).unavailable == nil, "no KVM here")) struct RescueTests {
    /// Answers as it is told to, and remembers what it was given.
    final class Rescuer: InstructionRescue, InstructionRescuer, @unchecked Sendable {
        var given: [VCPUState] = []
        var settings: [RescueSetting] = []
        var area: [UInt8] = []
        let answer: (inout VCPUState) -> RescueOutcome

        init(_ answer: @escaping (inout VCPUState) -> RescueOutcome) { self.answer = answer }

        func makeRescuer(_ setting: RescueSetting) throws(EngineError) -> any InstructionRescuer {
            settings.append(setting)
            return self
        }

        func rescue(_ state: inout VCPUState, of vcpu: any RescuedVCPU) -> RescueOutcome {
            given.append(state)
            area = (try? vcpu.rescuedExtendedState().area) ?? []
            return answer(&state)
        }
    }

    static let code = Snippet(
        bits: 64,
        """
        movl $0xD0000000, %ebx
        pxor (%rbx), %xmm0
        outb %al, $0x10
        """,
        [0xBB, 0x00, 0x00, 0x00, 0xD0, 0x66, 0x0F, 0xEF, 0x03, 0xE6, 0x10])

    private func machine(_ rescuer: Rescuer?) throws -> ConformanceMachine {
        let factory = EngineFactory(name: "kvm", features: []) { (memory, count) throws(EngineError) in
            let engine = try KVMEngine(system: try KVMSystem(), memory: memory, vcpuCount: count, irqChip: .none)
            if let rescuer { engine.connect(rescue: rescuer) }
            return engine
        }
        return try ConformanceMachine(factory)
    }

    private func boot(_ machine: ConformanceMachine) throws -> any VCPU {
        try machine.boot(Self.code) { general, system in
            general.r9 = 0x1234_5678_9ABC
            system.cr4 |= 0x200
        }
    }

    @Test func theGuestGoesOnWithWhatItIsGiven() throws {
        let rescuer = Rescuer { state in
            state.general.rip += 4
            state.general.r10 = 77
            state.system.fs.base = 0x4444
            state.system.cr2 = 0x5555
            state.debug.dr0 = 0x6666
            state.events.nmiMasked = true
            return .executed(dropsTranslations: true)
        }
        let machine = try machine(rescuer)
        let vcpu = try boot(machine)
        let state = try machine.runToEnd(vcpu)
        #expect(vcpu.statistics.rescues == 1)
        #expect(rescuer.given.count == 1)
        #expect(rescuer.given.first?.general.rip == 0x1005)
        #expect(rescuer.given.first?.general.r9 == 0x1234_5678_9ABC)
        #expect(rescuer.given.first?.general.rbx == 0xD000_0000)
        #expect(rescuer.given.first?.system.cr4 == 0x220)
        #expect(rescuer.area.count >= 576)
        // CPUID as the guest has it: long mode, SSE2.
        #expect(rescuer.settings.first.map { $0.cpuid(0x8000_0001, 0).edx & 1 << 29 } == 1 << 29)
        #expect(rescuer.settings.first.map { $0.cpuid(1, 0).edx & 1 << 26 } == 1 << 26)
        #expect(rescuer.settings.first?.cpuid(0x7777, 0) == RescueSetting.Answer())
        #expect(state.general.r9 == 0x1234_5678_9ABC)
        #expect(state.general.r10 == 77)
        #expect(state.system.fs.base == 0x4444)
        #expect(state.system.cr2 == 0x5555)
        #expect(state.system.cr3 == ConformanceMachine.pageTables)
        #expect(state.debug.dr0 == 0x6666)
        #expect(state.events.nmiMasked)
    }

    @Test func registersAreThoseOfNowEachTime() throws {
        let rescuer = Rescuer { state in
            // The third time on.
            if state.general.r10 == 2 { state.general.rip += 4 }
            state.general.r10 += 1
            return .executed(dropsTranslations: false)
        }
        let machine = try machine(rescuer)
        let vcpu = try boot(machine)
        let state = try machine.runToEnd(vcpu)
        #expect(vcpu.statistics.rescues == 3)
        #expect(rescuer.given.map(\.general.r10) == [0, 1, 2])
        #expect(state.general.r10 == 3)
    }

    @Test func extendedStateThatComesBackIsTheGuests() throws {
        var area: [UInt8] = []
        let rescuer = Rescuer { state in
            state.general.rip += 4
            state.extended = area
            state.xcr0 = 1
            return .executed(dropsTranslations: false)
        }
        area = [UInt8](repeating: 0, count: 4096)
        area[0] = 0x7F
        area[1] = 3
        area[24] = 0x80
        area[25] = 0x1F
        area[512] = 3
        for index in 0..<16 { area[160 + index] = UInt8(index + 1) }
        let machine = try machine(rescuer)
        let state = try machine.runToEnd(try boot(machine))
        #expect(Array(state.extended[160..<176]) == Array(1...16))
    }

    @Test func aRefusalIsTheCrashThatNamesIt() throws {
        let machine = try machine(Rescuer { _ in .refused("it does not execute pxor") })
        guard case .failed(let failure) = try machine.run(try boot(machine)) else {
            Issue.record("it did not fail")
            return
        }
        #expect(failure.description.contains("KVM could not emulate an instruction"))
        #expect(failure.description.contains("it does not execute pxor"))
        guard case .notRescued(_, let bytes) = failure else {
            Issue.record("\(failure)")
            return
        }
        #expect(bytes.isEmpty || bytes.starts(with: [0x66, 0x0F, 0xEF, 0x03]))
    }

    @Test func withoutARescuerItIsTheCrashThatItWas() throws {
        let machine = try machine(nil)
        guard case .failed(.internal(suberror: 1, _, _)) = try machine.run(try boot(machine)) else {
            Issue.record("another exit")
            return
        }
    }

    @Test func aShutdownIsATripleFault() throws {
        let machine = try machine(Rescuer { _ in .shutdown })
        #expect(try machine.run(try boot(machine)) == .shutdown)
    }

    /// A rescuer that never gets on does not keep the vCPU from being stopped.
    @Test func aKickComesThrough() throws {
        let machine = try machine(Rescuer { _ in .executed(dropsTranslations: false) })
        let vcpu = try boot(machine)
        let kicker = vcpu.kicker
        let thread = TestThread {
            sleep(microseconds: 20_000)
            kicker.kick()
        }
        #expect(try machine.run(vcpu) == .kicked)
        thread.join()
    }
}
