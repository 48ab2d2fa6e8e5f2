/// A processor to compare with, and what of it cannot be compared: each thing with its reason, and as narrow as it can be.
public struct ControlReference: Sendable {
    public let name: String
    /// Places in outcomes that are left out.
    public let quirks: Set<ControlQuirk>
    /// Programs that are left out: what they try, and why its outcome is not that of a processor.
    public let omissions: [ControlProgram.Trait: String]

    /// A processor: nothing is left out.
    public static let exact = ControlReference(name: "exact", quirks: [], omissions: [:])

    /// KVM on AMD-V as QEMU 7.2's TCG emulates it: all but a few instructions are TCG's.
    public static let qemu = ControlReference(
        name: "qemu",
        quirks: [
            .noResumeFlag, .noExternalBit, .accessedBeforeFault, .accessedPointer, .doubledVector, .codeNotMarked,
            .reservedWithoutPresent,
        ],
        omissions: [
            .nonCanonicalBase: "QEMU's TCG takes any base in LGDT, LIDT and WRMSR",
            .nonCanonicalTarget: "QEMU's TCG branches there, and faults at the target",
            .int1: "QEMU's TCG raises #UD for INT1",
            .generalDetect: "QEMU's TCG has no DR7.GD",
            .segmentLimits: "QEMU's TCG checks segments when they are loaded and not when they are used",
            .readModifyWrite: "QEMU's TCG reads first, so that a page fault is one of a read",
            .taskSwitch: "tasks are switched by KVM's own code, not by the processor",
            .absentCode: "QEMU's TCG raises #GP where code behind a gate is not present",
            .longAndBig: "QEMU's TCG takes code that is both of 64 and of 32 bits",
            .nullTask: "QEMU's TCG loads a null selector into TR",
            .resumeFlag: "QEMU's TCG clears RF at the end of what it translates at once, not of the instruction",
            .reservedCR3: "QEMU's TCG takes reserved bits in CR3, with which KVM cannot enter the guest any more",
            .interruptStack: "QEMU's TCG makes SS null with every interrupt stack",
            .oddGateAfterExit: "QEMU's TCG does not combine a fault with one that a hypervisor has injected",
            .arithmeticMask: "QEMU's TCG clears all arithmetic flags in SYSCALL",
            .highControlBits: "KVM's emulator, which QEMU's SVM makes it use for want of decode assists, cuts them off",
            .pointersReloaded: "QEMU's TCG sets bits in PAE's pointers that KVM then finds reserved",
        ])

    /// KVM on VT-x as Bochs 2.7 emulates it.
    public static let bochs = ControlReference(
        name: "bochs", quirks: [.resumeFlagOfDoubleFault],
        omissions: [
            .taskSwitch: "tasks are switched by KVM's own code, not by the processor",
            .narrowReturn: "Bochs pops SS:RSP in 64-bit code only with an operand size of 64 bits; processors always do",
        ])

    public static let all = [exact, qemu, bochs]

    /// Why a program is left out; nil where it is compared.
    public func omission(of program: ControlProgram) -> String? {
        program.traits.sorted { $0.rawValue < $1.rawValue }.lazy.compactMap { omissions[$0] }.first
    }
}
