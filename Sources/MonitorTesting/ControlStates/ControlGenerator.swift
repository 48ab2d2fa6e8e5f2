/// Makes programs of one to six items, everything drawn from one seed and a number: any program can be made by itself.
public struct ControlGenerator: Sendable {
    public let seed: UInt64

    public init(seed: UInt64) { self.seed = seed }

    /// Each mode has every sixth program, long mode two of six.
    private static let modes: [ControlProgram.Mode] = [.long64, .pae32, .paged32, .real16, .long64, .flat32]

    public func program(_ number: Int) -> ControlProgram {
        let mode = Self.modes[number % Self.modes.count]
        let own = seed &+ UInt64(truncatingIfNeeded: number) &* 0xD6E8_FEB8_6659_FD93
        var draft = ControlDraft(mode: mode, random: SeededRandom(seed: own))
        draft.drawTables()
        // From a TR that is busy, as processors have it, QEMU's TCG cannot take a stack: it ends with "invalid tss type".
        if mode.bits == 32 { draft.loadTask() }
        for _ in 0...draft.random.below(6) { draft.drawItem() }
        draft.end()
        return ControlProgram(
            seed: seed, number: number, mode: mode, items: draft.items, kinds: draft.kinds, traits: draft.traits,
            code: draft.code, patches: draft.patches, hasLDT: draft.hasLDT)
    }
}

/// A program that is being made: code, and memory that is its own.
struct ControlDraft {
    let mode: ControlProgram.Mode
    var random: SeededRandom
    /// Of the code that is written next: a program may have left its first code segment.
    var bits: Int
    var code: [UInt8] = []
    var patches: [(address: UInt64, bytes: [UInt8])] = []
    var items: [String] = []
    var kinds: Set<ControlItem> = []
    var traits: Set<ControlProgram.Trait> = []
    var hasLDT = false
    /// What an item may have left behind: a segment that is not flat, code in ring 3.
    var hasOddSegment = false
    var mayBeUser = false
    /// Vectors with an interrupt stack; the exception whose gate is not as the others.
    var stackGates: Set<UInt64> = []
    private var oddGate: UInt64?
    private var nextOperand = ControlLayout.operands

    init(mode: ControlProgram.Mode, random: SeededRandom) {
        self.mode = mode
        self.random = random
        bits = mode.bits
        hasLDT = self.random.oneIn(2)
    }

    var isLong: Bool { mode == .long64 }
    var isPaged: Bool { mode == .long64 || mode == .pae32 || mode == .paged32 }
    var here: UInt64 { ControlLayout.code + UInt64(code.count) }

    mutating func pick<Value>(_ values: [Value]) -> Value { values[random.below(values.count)] }

    // MARK: Code

    mutating func emit(_ bytes: UInt8...) { code += bytes }

    mutating func emit(_ value: UInt64, size: Int) {
        for byte in 0..<size { code.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * byte))) }
    }

    /// A general register, in full width: always of the same length.
    mutating func set(_ register: UInt8, _ value: UInt64) {
        if bits == 64 { emit(0x48) } else if bits == 16 { emit(0x66) }
        emit(0xB8 + register)
        emit(value, size: bits == 64 ? 8 : 4)
    }

    /// ModRM and what follows for a memory operand at an address below 64 KiB, or in wider code any that fits.
    mutating func absolute(_ register: UInt8, _ address: UInt64) {
        switch bits {
        case 64:
            emit(0x04 | register << 3, 0x25)
            emit(address, size: 4)
        case 32:
            emit(0x05 | register << 3)
            emit(address, size: 4)
        default:
            emit(0x06 | register << 3)
            emit(address, size: 2)
        }
    }

    mutating func push(_ value: UInt64, size: Int) {
        switch (bits, size) {
        case (64, 8):
            set(0, value)
            emit(0x50)
        case (64, 4):
            // lea -4(%rsp), %rsp; movl $value, (%rsp)
            emit(0x48, 0x8D, 0x64, 0x24, 0xFC, 0xC7, 0x04, 0x24)
            emit(value, size: 4)
        case (16, 2), (32, 4):
            emit(0x68)
            emit(value, size: size)
        case (_, 2), (16, 4):
            emit(0x66, 0x68)
            emit(value, size: size)
        default:
            emit(0x68)
            emit(value, size: 4)
        }
    }

    /// Bytes in memory of their own.
    mutating func place(_ bytes: [UInt8]) -> UInt64 {
        let address = nextOperand
        nextOperand += UInt64(bytes.count + 3 & ~3)
        patches.append((address, bytes))
        return address
    }

    static func bytes(_ parts: (value: UInt64, size: Int)...) -> [UInt8] {
        parts.flatMap { part in (0..<part.size).map { UInt8(truncatingIfNeeded: part.value >> UInt64(8 * $0)) } }
    }

    /// Writes what needs the address that follows it: it is of the same length whatever that is.
    mutating func withNext(_ write: (inout ControlDraft, UInt64) -> Void) {
        var measured = self
        write(&measured, here)
        write(&self, measured.here)
    }

    /// mov $0x40, %eax; ltr %ax
    mutating func loadTask() {
        set(0, 0x40)
        emit(0x0F, 0x00, 0xD8)
    }

    /// A trap that is due comes before the end.
    mutating func end() {
        let exits: Set<ControlItem> = [.writeControl, .machineStatus, .debugRegister, .readMSR, .writeMSR]
        if oddGate == 13, !kinds.isDisjoint(with: exits) { traits.insert(.oddGateAfterExit) }
        if hasOddSegment, mode != .long64 || kinds.contains(where: Self.leaves64.contains) { traits.insert(.segmentLimits) }
        emit(0x90, 0x90, 0xE6, ControlLayout.completed, 0xEB, 0xFE)
    }

    /// What may lead from 64-bit code to other.
    private static let leaves64: [ControlItem] = [
        .farJump, .farCall, .farReturn, .interruptReturn, .systemReturn, .softwareInterrupt,
    ]

    /// What this program has in its GDT, where that is its own.
    func descriptor(_ selector: UInt16) -> UInt64? {
        let address = ControlLayout.gdt + UInt64(selector & 0xFFF8)
        let patch = patches.last { $0.address == address && $0.bytes.count >= 8 }
        guard selector & 4 == 0, let patch else { return nil }
        return patch.bytes.prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    // MARK: Draws

    mutating func drawLevel() -> UInt16 { pick([0, 0, 0, 0, 0, 3, 3, 1]) }

    /// Of every kind: well known, this program's own, local, none, past the end.
    mutating func drawSelector() -> UInt16 {
        let level = drawLevel()
        switch random.below(16) {
        case 0: return level
        case 1: return pick([0xE0, 0x1F8, 0xFFF8]) | level
        case 2, 3: return UInt16(random.below(6)) << 3 | 4 | level
        case 4...9: return 0x80 + UInt16(random.below(12)) * 8 | level
        default: return UInt16(1 + random.below(15)) * 8 | level
        }
    }

    mutating func drawDescriptor() -> UInt64 {
        let present: UInt8 = random.oneIn(6) ? 0 : 0x80
        let dpl: UInt8 = pick([0, 0, 0, 3, 3, 1])
        if random.oneIn(5) {
            let type = UInt8(random.below(16))
            return ControlEnvironment.descriptor(
                base: UInt32(pick([ControlLayout.tss, ControlLayout.ldt])), limit: pick([0x67, 0x1F, 0x10]),
                access: present | dpl << 5 | type, flags: pick([0, 0, 8]))
        }
        let type: UInt8 = pick([0x10, 0x12, 0x12, 0x16, 0x14, 0x18, 0x1A, 0x1A, 0x1C, 0x1E, 0x1E])
        let isCode = type & 8 != 0
        let flags: UInt8 = pick(isCode ? isLong ? [0xA, 0xA, 0xC, 0x8] : [0xC, 0xC, 0xC, 0x8] : [0xC, 0xC, 0x8, 0x4])
        if isLong, type & 8 != 0, random.oneIn(40) {
            traits.insert(.longAndBig)
            return ControlEnvironment.descriptor(access: present | dpl << 5 | type, flags: 0xE)
        }
        let limit: UInt32 = type & 0xC == 4 ? pick([0, 0, 0x4FF0, 0xFFFFF]) : pick([0xFFFFF, 0xFFFFF, 0xFFFFF, 0xFFF, 5])
        return ControlEnvironment.descriptor(
            base: pick([0, 0, 0, 0, 0x100]), limit: limit, access: present | dpl << 5 | type | UInt8(random.below(2)),
            flags: flags)
    }

    /// Where a branch leads, if not on.
    mutating func drawTarget(_ size: Int) -> UInt64? {
        guard random.oneIn(6) else { return nil }
        if size == 8, random.oneIn(3) {
            traits.insert(.nonCanonicalTarget)
            return pick([0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF])
        }
        guard isPaged, size >= 4 else { return 0x2480 }
        return pick([0x3F00_0000, 0x2480, ControlLayout.test + 0x4010, ControlLayout.test + 0x3010])
    }

    mutating func drawGate(isCall: Bool) -> ControlGate {
        let types: [UInt8] =
            isCall ? (isLong ? [0xC, 0xC, 0xC, 0xC, 0x4, 0xE] : [0xC, 0xC, 0xC, 4, 4]) : isLong
                ? [0xE, 0xE, 0xF, 0xF, 0xE, 0xC, 6, 7] : [0xE, 0xE, 0xF, 0xF, 6, 7, 0xC, 0]
        let isPresent = !random.oneIn(7)
        let dpl: UInt8 = random.oneIn(2) ? 3 : 0
        let type = pick(types)
        var gate = ControlGate(
            target: ControlLayout.handler(0x80 | UInt8(random.below(64))), selector: random.oneIn(3) ? drawSelector() : 8,
            access: (isPresent ? 0x80 : 0) | dpl << 5 | type)
        if random.oneIn(8) { gate.target = drawTarget(isLong ? 8 : 4) ?? gate.target }
        // What a 16-bit gate cuts off would lead anywhere.
        if type & 8 == 0, gate.target > 0xFFFF { gate.target = 0x2480 }
        if isLong, !isCall, random.oneIn(3) { gate.low = UInt8(random.below(4)) }
        if !isLong, isCall { gate.low = UInt8(random.below(3)) }
        return gate
    }

    /// This program's descriptors and gates.
    mutating func drawTables() {
        guard mode != .real16 || random.oneIn(2) else { return }
        for index in 16..<24 as Range<UInt64> {
            patches.append((ControlLayout.gdt + 8 * index, Self.bytes((drawDescriptor(), 8))))
        }
        for index in [14, 24, 26] as [UInt64] {
            patches.append((ControlLayout.gdt + 8 * index, drawGate(isCall: true).bytes(isLong: isLong)))
        }
        guard mode != .real16 else { return }
        let size: UInt64 = isLong ? 16 : 8
        for vector in 0x20..<0x30 as Range<UInt64> {
            let gate = drawGate(isCall: false)
            if isLong, gate.low != 0 { stackGates.insert(vector) }
            patches.append((ControlLayout.idt + size * vector, gate.bytes(isLong: isLong)))
        }
        if random.oneIn(4) {
            let vector = pick([1, 3, 6, 8, 10, 11, 12, 13, 13, 14, 14] as [UInt64])
            var gate = drawGate(isCall: false)
            // Its handler is its own, so that the end tells which exception it was.
            let isHandler = gate.target > ControlLayout.handlers && gate.target < ControlLayout.idt
            if isHandler { gate.target = ControlLayout.handlers + 4 * vector }
            if isLong, gate.low != 0 { traits.insert(.interruptStack) }
            oddGate = vector
            patches.append((ControlLayout.idt + size * vector, gate.bytes(isLong: isLong)))
            items.append("gate \(vector) is another")
        }
    }

    mutating func note(_ kind: ControlItem, _ text: String) {
        kinds.insert(kind)
        items.append("\(kind.rawValue) \(text)")
    }
}

func short(_ value: UInt64) -> String { String(value, radix: 16) }
func short(_ value: UInt16) -> String { String(value, radix: 16) }
