internal import VMCore

/// What a reference gets wrong, or what the manuals leave open and it does in its own way: a place in the outcome that is
/// then compared with neither engine's answer in it.
public enum ControlQuirk: String, CaseIterable, Sendable {
    /// The frame of a fault has RFLAGS.RF clear.
    /// Source: [SDM3 §18.3.1.1] has it set for every fault but instruction breakpoints.
    case noResumeFlag = "no-resume-flag"
    /// The error code of a fault met in the delivery of an exception has EXT clear. Source: [SDM3 §6.13].
    case noExternalBit = "no-external-bit"
    /// A walk that ends in a page fault has set accessed bits in the directories on its way.
    /// Source: [SDM3 §4.8] leaves it open.
    case accessedBeforeFault = "accessed-before-fault"
    /// PAE's pointers get an accessed bit, which they do not have. Source: [SDM3 §4.4.1].
    case accessedPointer = "accessed-pointer"

    /// Error codes of gates of long mode have twice the vector. Source: [SDM3 §6.13].
    case doubledVector = "doubled-vector"

    /// A far transfer leaves the code segment's descriptor without its accessed bit. Source: [SDM3 §3.4.5.1].
    case codeNotMarked = "code-not-marked"
    /// The error code of a page fault for a reserved bit has P clear. Source: [SDM3 §4.7].
    case reservedWithoutPresent = "reserved-without-present"

    /// The frame of a double fault has RFLAGS.RF of the fault before it. Source: [SDM3 §18.3.1.1] speaks of faults alone.
    case resumeFlagOfDoubleFault = "resume-flag-of-double-fault"

    /// Makes those places the same in every outcome.
    static func apply(
        _ quirks: Set<ControlQuirk>, mode: ControlProgram.Mode, ending: UInt64, state: VCPUState?, memory: inout [UInt8],
        before: [UInt8]
    ) {
        func clear(_ bits: UInt8, at address: UInt64) {
            guard address < UInt64(memory.count) else { return }
            memory[Int(address)] &= ~bits
        }
        func keep(_ bits: UInt8, at address: UInt64) {
            memory[Int(address)] = memory[Int(address)] & ~bits | before[Int(address)] & bits
        }
        if quirks.contains(.accessedPointer), mode == .pae32 { keep(0x20, at: ControlLayout.pdpt) }
        let faulted = state.map { $0.system.cr2 != ControlEnvironment.untouchedCR2 } ?? true
        if quirks.contains(.accessedBeforeFault), faulted {
            let size: UInt64 = mode == .paged32 ? 4 : 8
            for entry in 0..<5 as Range<UInt64> { keep(0x20, at: ControlLayout.directory + size * entry) }
            if mode == .long64 { keep(0x20, at: ControlLayout.pdpt + 8) }
        }
        if quirks.contains(.codeNotMarked) {
            let places = (1..<28).map { ControlLayout.gdt + 8 * $0 } + (0..<4).map { ControlLayout.ldt + 8 * $0 } as [UInt64]
            for place in places where before[Int(place) + 5] & 0x18 == 0x18 { keep(1, at: place + 5) }
        }
        guard let state, ending < 32 else { return }
        let isProtected = state.system.cr0 & 1 != 0
        let isLong = state.system.efer & 0x400 != 0
        var size: UInt64 = isLong ? 8 : isProtected ? 4 : 2
        if size == 4 {
            let gate = Int(truncatingIfNeeded: state.system.idtr.base &+ 8 &* ending &+ 5)
            if gate < memory.count, memory[max(0, gate)] & 8 == 0 { size = 2 }
        }
        var stack = isLong ? state.general.rsp : (state.system.ss.base &+ state.general.rsp) & 0xFFFF_FFFF
        // All of these pages are the same one.
        if stack &>> 16 == ControlLayout.test &>> 16 { stack = ControlLayout.data | stack & 0xFFF }
        guard size > 2 else { return }
        let hasCode = ending == 8 || ending >= 10 && ending <= 14 || ending == 17
        if quirks.contains(.resumeFlagOfDoubleFault), ending == 8 { clear(1, at: stack &+ 3 &* size &+ 2) }
        if quirks.contains(.noResumeFlag) {
            clear(1, at: stack &+ 2 &* size &+ 2)
            if hasCode { clear(1, at: stack &+ 3 &* size &+ 2) }
        }
        if quirks.contains(.reservedWithoutPresent), ending == 14, stack < UInt64(memory.count), memory[Int(stack)] & 8 != 0 {
            clear(1, at: stack)
        }
        guard ending >= 10, ending <= 13, stack < UInt64(memory.count) - 8 else { return }
        if quirks.contains(.noExternalBit) { clear(1, at: stack) }
        if quirks.contains(.doubledVector), isLong, memory[Int(stack)] & 2 != 0 {
            clear(0xF8, at: stack)
            clear(0xFF, at: stack &+ 1)
        }
    }
}
