import CNative
import Glibc
import Testing
import X86

@testable import MonitorTesting

/// The native executor against what is known of the instructions: it must tell truth before it is an oracle.
@Suite(.serialized) struct NativeCPUTests {
    private func prepare(_ slot: CaseRecord, _ code: [UInt8], breakpoint: Bool = false, offset: Int = 0x100) {
        for number in 0..<16 { slot[general: number] = UInt64(number) * 0x0101_0101_0101_0101 }
        slot[general: 4] = Sandbox.stack + 0x800
        slot.rip = Sandbox.code + UInt64(offset)
        slot.rflags = 0x202
        slot.fsBase = 0x1234_5000
        slot.gsBase = 0x5678_9000
        slot.flags = breakpoint ? 1 : 0
        for position in stride(from: 0, to: 512, by: 8) { slot.storeFX(UInt64(0), position) }
        slot.storeFX(UInt16(0x37F), 0)
        slot.storeFX(UInt32(0x1F80), 24)
        for position in 0..<3 * 512 { slot.memory.storeBytes(of: 0x5A5A_0000_5A5A_0000 + UInt64(position), toByteOffset: position * 8, as: UInt64.self) }
        slot.setCode(code + (breakpoint ? [0xCC] : []), at: offset)
    }

    @Test func registersAndFlagsAreExactlyTheInstructions() throws {
        let native = try NativeCPU()
        prepare(native[0], [0x48, 0x01, 0xC8])  // add rax, rcx
        native[0][general: 0] = 0x7FFF_FFFF_FFFF_FFFF
        native[0][general: 1] = 1
        prepare(native[1], [0x48, 0x01, 0xC8], breakpoint: true)
        prepare(native[2], [0x0F, 0x58, 0xC1])  // addps xmm0, xmm1
        native[2].storeFX(UInt32(0x3F80_0000), 160)
        native[2].storeFX(UInt32(0x3F80_0000), 176)
        prepare(native[3], [0xD9, 0xE8])  // fld1
        try native.run(count: 4)
        #expect(native[0][general: 0] == 0x8000_0000_0000_0000)
        #expect(native[0].rip == Sandbox.code + 0x103)
        #expect(native[0].vector == 1)
        #expect(native[0].rflags & 0xCD5 == 0x894, "OF, SF, AF and PF: \(String(native[0].rflags, radix: 16))")
        for number in 1..<16 where number != 4 && number != 1 { #expect(native[0][general: number] == UInt64(number) * 0x0101_0101_0101_0101) }
        #expect(native[0].fsBase == 0x1234_5000 && native[0].gsBase == 0x5678_9000 && native[0].cs == 0x33)
        #expect(native[1].vector == 3 && native[1].rip == Sandbox.code + 0x104 && native[1][general: 0] == 0x0101_0101_0101_0101)
        #expect(native[2].loadFX(160, as: UInt32.self) == 0x4000_0000)
        #expect(native[3].loadFX(32, as: UInt64.self) == 0x8000_0000_0000_0000)
        #expect(native[3].loadFX(40, as: UInt16.self) == 0x3FFF)
        #expect(native[3].loadFX(2, as: UInt16.self) == 7 << 11)
        #expect(native[3].loadFX(4, as: UInt8.self) == 0x80)
    }

    @Test func faultsTellVectorErrorCodeAndAddress() throws {
        let native = try NativeCPU()
        func load(_ slot: Int, _ address: UInt64, _ code: [UInt8] = [0x48, 0x8B, 0x08]) {
            prepare(native[slot], code)
            native[slot][general: 0] = address
        }
        let store: [UInt8] = [0x48, 0x89, 0x08]
        load(0, Sandbox.readOnly + 4096)  // past the end
        load(1, Sandbox.readOnly, store)
        load(2, Sandbox.data - 1, store)  // starts before the first page
        load(3, 0x8000_0000_0000_0000)  // not canonical
        load(4, Sandbox.data, [0xF7, 0x30])  // div dword [rax]
        native[4].poke(0, at: Sandbox.data, size: 4)
        prepare(native[5], [0x0F, 0x0B])  // ud2
        load(6, Sandbox.data + 1, [0x0F, 0x28, 0x00])  // movaps, misaligned
        prepare(native[7], [0xCD, 0x41])  // int 0x41
        prepare(native[8], [0xDE, 0xC1])  // faddp with an exception pending and unmasked
        native[8].storeFX(UInt16(0x37E), 0)
        native[8].storeFX(UInt16(0x8081), 2)
        load(9, Sandbox.data + 2)  // alignment check
        native[9].rflags |= 1 << 18
        prepare(native[10], [0xF4])  // hlt
        load(11, Sandbox.readOnly + 4096 - 4)  // crosses into nothing
        load(12, Sandbox.data + 1)
        try native.run(count: 13)
        func outcome(_ slot: Int) -> [UInt64] { [native[slot].vector, native[slot].error] }
        #expect(outcome(0) == [14, 4] && native[0].cr2 == Sandbox.readOnly + 4096)
        #expect(outcome(1) == [14, 7] && native[1].cr2 == Sandbox.readOnly)
        #expect(outcome(2) == [14, 6] && native[2].cr2 == Sandbox.data - 1)
        #expect(outcome(3) == [13, 0])
        #expect(outcome(4) == [0, 0])
        #expect(outcome(5) == [6, 0] && native[5].rip == Sandbox.code + 0x100)
        #expect(outcome(6) == [13, 0])
        #expect(outcome(7) == [13, 0x41 * 8 + 2])
        #expect(outcome(8)[0] == 16)
        #expect(outcome(9)[0] == 17)
        #expect(outcome(10) == [13, 0])
        #expect(outcome(11) == [14, 4] && native[11].cr2 == Sandbox.readOnly + 4096)
        #expect(native[12].vector == 1 && native[12][general: 1] == 0x015A_5A00_005A_5A00)
    }

    @Test func memoryAndStackComeBack() throws {
        let native = try NativeCPU()
        prepare(native[0], [0x50])  // push rax
        native[0][general: 0] = 0x1122_3344_5566_7788
        prepare(native[1], [0xF3, 0xA4], breakpoint: true)  // rep movsb
        native[1][general: 6] = Sandbox.readOnly
        native[1][general: 7] = Sandbox.data + 4090
        native[1][general: 1] = 12
        native.setReadOnly([UInt8](1...100))
        try native.run(count: 2)
        #expect((0..<8).map { native[0].peek(Sandbox.stack + 0x7F8 + $0) } == [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11])
        #expect((0..<12).map { native[1].peek(Sandbox.data + 4090 + $0) } == (1...12).map { UInt8($0) })
        #expect(native[1][general: 1] == 0 && native[1].vector == 3)
        // Nothing of one case reaches the next.
        prepare(native[0], [0x90])
        try native.run(count: 1)
        #expect(native[0].peek(Sandbox.data + 4090) == 0x5A)
    }

    @Test func compatibilityMode() throws {
        let native = try NativeCPU()
        prepare(native[0], [0x40])  // inc eax in 32-bit code
        native[0].flags = 2
        native[0][general: 0] = 0xFFFF_FFFF
        prepare(native[1], [0x8B, 0x08])  // mov ecx, [eax]
        native[1].flags = 2
        native[1][general: 0] = Sandbox.data
        prepare(native[2], [0x27])  // daa
        native[2].flags = 2
        native[2][general: 0] = 0x9A
        try native.run(count: 3)
        #expect(native[0][general: 0] == 0 && native[0].rip == Sandbox.code + 0x101 && native[0].cs == 0x23)
        #expect(native[1][general: 1] == 0x5A5A_0000 && native[1].vector == 1, "\(native[1].vector) \(native[1].error)")
        #expect(native[2][general: 0] & 0xFF == 0x00)
    }

    @Test func aLostCaseIsNamedAndTheNextRunWorks() throws {
        let native = try NativeCPU()
        prepare(native[0], [0x90])
        prepare(native[1], [0xEB, 0xFE], breakpoint: true)  // for ever
        prepare(native[2], [0x90])
        var lost = -1
        do { try native.run(count: 3, milliseconds: 300) } catch {
            if case .lost(let position, true) = error { lost = position }
        }
        #expect(lost == 1)
        prepare(native[0], [0x90])
        try native.run(count: 1)
        #expect(native[0].rip == Sandbox.code + 0x101)
    }

    /// The gate's 200,000 cases and the soak's ten million must stay affordable.
    @Test func isFastEnough() throws {
        let native = try NativeCPU()
        let clock = ContinuousClock()
        let time = try clock.measure {
            for _ in 0..<200 {
                for slot in 0..<Sandbox.slots { native[slot].rip = Sandbox.code + 0x100; native[slot].rflags = 0x202; native[slot].setCode([0x90], at: 0x100) }
                try native.run(count: Sandbox.slots)
            }
        }
        let rate = Double(200 * Sandbox.slots) / (Double(time.components.attoseconds) / 1e18 + Double(time.components.seconds))
        print("native executor: \(Int(rate)) cases a second")
        #expect(rate > 5_000)
    }
}
