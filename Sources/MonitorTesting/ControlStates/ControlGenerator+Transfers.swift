extension ControlDraft {
    /// The code segment of a transfer that means to arrive, with what the code there is.
    private mutating func drawCode(level: UInt16) -> (selector: UInt16, bits: Int) {
        if mode == .real16 && bits == 16 { return (pick([0, 0, 0, 0x10]), 16) }
        if level == 3 { return isLong && random.oneIn(2) ? (0x2B, 64) : (0x33, 32) }
        return pick([(8, isLong ? 64 : 32), (8, isLong ? 64 : 32), (0x18, 32), (0x38, 16)])
    }

    mutating func farBranch(isCall: Bool) {
        if bits != 16, random.oneIn(3) {
            // Through a gate, or to nothing that code can be.
            let selector = random.oneIn(3) ? drawSelector() : pick([0x70, 0xC0, 0xD0, 0x73])
            mark(selector, isCall: isCall)
            if !isLong, random.oneIn(2) { return noteFar(isCall, direct(isCall, selector)) }
            return noteFar(isCall, indirect(isCall, selector))
        }
        let known = drawCode(level: 0)
        let selector = random.oneIn(4) && mode != .real16 ? drawSelector() : known.selector
        if bits != 16 || mode != .real16 { mark(selector, isCall: isCall) }
        let isDirect = bits != 64 && random.oneIn(2)
        let target = drawTarget(4)
        withNext { draft, next in
            if isDirect { draft.emitDirect(isCall, selector, target ?? next) } else {
                draft.emitIndirect(isCall, selector, target ?? next)
            }
        }
        if selector == known.selector { bits = known.bits }
        noteFar(isCall, "\(short(selector)):\(target.map(short) ?? "next")")
    }

    /// Branches to tasks, and jumps through gates to what is not there.
    private mutating func mark(_ selector: UInt16, isCall: Bool) {
        let isTask = selector & 0xFFFC == 0x40 || selector & 0xFFFC == 0x50
        guard let descriptor = descriptor(selector) else {
            if isTask, !isLong { traits.insert(.taskSwitch) }
            return
        }
        guard descriptor >> 44 & 1 == 0 else { return }
        let type = descriptor >> 40 & 15
        if !isLong, [1, 5, 9].contains(type) { traits.insert(.taskSwitch) }
        guard !isCall, type & 7 == 4 else { return }
        let code = self.descriptor(UInt16(truncatingIfNeeded: descriptor >> 16))
        if let code, code >> 47 & 1 == 0 { traits.insert(.absentCode) }
    }

    private mutating func noteFar(_ isCall: Bool, _ text: String) { note(isCall ? .farCall : .farJump, text) }

    private mutating func direct(_ isCall: Bool, _ selector: UInt16) -> String {
        withNext { draft, next in draft.emitDirect(isCall, selector, next) }
        return "direct \(short(selector))"
    }

    private mutating func indirect(_ isCall: Bool, _ selector: UInt16) -> String {
        withNext { draft, next in draft.emitIndirect(isCall, selector, next) }
        return "indirect \(short(selector))"
    }

    private mutating func emitDirect(_ isCall: Bool, _ selector: UInt16, _ target: UInt64) {
        emit(isCall ? 0x9A : 0xEA)
        emit(target, size: bits == 16 ? 2 : 4)
        emit(UInt64(selector), size: 2)
    }

    private mutating func emitIndirect(_ isCall: Bool, _ selector: UInt16, _ target: UInt64) {
        let pointer = place(Self.bytes((target, bits == 16 ? 2 : 4), (UInt64(selector), 2)))
        emit(0xFF)
        absolute(isCall ? 3 : 5, pointer)
    }

    mutating func farReturn() {
        let size = drawFrameSize()
        let level: UInt16 = random.oneIn(3) && mode != .real16 ? 3 : 0
        mayBeUser = mayBeUser || level == 3
        let known = drawCode(level: level)
        let selector = random.oneIn(5) && mode != .real16 ? drawSelector() : known.selector
        let target = drawTarget(size)
        let stackSelector: UInt16 = random.oneIn(5) ? drawSelector() : 0x23
        let extra: UInt64? = random.oneIn(3) ? pick([0, 8, 16]) : nil
        withNext { draft, next in
            draft.push(UInt64(stackSelector), size: size)
            draft.push(0x4700, size: size)
            if let extra { for _ in 0..<Int(extra) / size { draft.push(0, size: size) } }
            draft.push(UInt64(selector), size: size)
            draft.push(target ?? next, size: size)
            draft.prefix(size)
            if let extra {
                draft.emit(0xCA)
                draft.emit(extra, size: 2)
            } else {
                draft.emit(0xCB)
            }
        }
        if selector == known.selector { bits = known.bits }
        note(.farReturn, "\(size) \(short(selector)):\(target.map(short) ?? "next") \(short(stackSelector))")
    }

    private mutating func drawFrameSize() -> Int {
        switch bits {
        case 64: pick([8, 8, 4, 2])
        case 32: pick([4, 4, 4, 2])
        default: pick([2, 2, 4])
        }
    }

    /// The prefix that makes it the operand's size.
    private mutating func prefix(_ size: Int) {
        if size == 8 { emit(0x48) } else if bits == 16 ? size == 4 : size == 2 { emit(0x66) }
    }

    mutating func interruptReturn() {
        let size = drawFrameSize()
        let level: UInt16 = random.oneIn(3) && mode != .real16 ? 3 : 0
        mayBeUser = mayBeUser || level == 3
        let known = drawCode(level: level)
        let selector = random.oneIn(6) && mode != .real16 ? drawSelector() : known.selector
        let target = drawTarget(size)
        var flags: UInt64 = pick([2, 2, 2, 0x202, 0x3202, 0x102, 0x4_0002, 0x20_0CD7, 0x1_0002, 0x4002])
        if size == 2 { flags &= 0xFFFF }
        if flags & 0x100 != 0 { traits.insert(.debugException) }
        if bits == 64, size < 8 { traits.insert(.narrowReturn) }
        if flags & 0x1_0000 != 0 { traits.insert(.resumeFlag) }
        let usual: UInt16 = level == 3 ? 0x23 : random.oneIn(4) && known.bits == 64 ? 0 : 0x10
        let stackSelector = random.oneIn(6) ? drawSelector() : usual
        var stack: UInt64 = 0x4700
        if size == 8, random.oneIn(12) {
            traits.insert(.nonCanonicalStack)
            stack = 0x8000_0000_0000
        }
        withNext { draft, next in
            draft.push(UInt64(stackSelector), size: size)
            draft.push(stack, size: size)
            draft.push(flags, size: size)
            draft.push(UInt64(selector), size: size)
            draft.push(target ?? next, size: size)
            draft.prefix(size)
            draft.emit(0xCF)
        }
        if selector == known.selector { bits = known.bits }
        note(
            .interruptReturn,
            "\(size) \(short(selector)):\(target.map(short) ?? "next") \(short(stackSelector)):\(short(stack)) \(short(flags))")
    }

    mutating func softwareInterrupt() {
        switch random.below(8) {
        case 0: emit(0xCC)
        case 1:
            traits.insert(.int1)
            emit(0xF1)
        case 2 where bits != 64:
            // add makes OF: INTO.
            emit(0xB0, 0x7F, 0x04, 0x01, 0xCE)
        case 3:
            emit(0xCD, pick([0, 1, 3, 8, 13, 14, 0x40, 0x80, 0xFF]))
        default:
            let vector = 0x20 + UInt8(random.below(16))
            if stackGates.contains(UInt64(vector)) { traits.insert(.interruptStack) }
            emit(0xCD, vector)
        }
        note(.softwareInterrupt, short(UInt64(code[code.count - 1])))
    }

    mutating func systemCall(isReturn: Bool) {
        // Outside 64-bit code each vendor has its own.
        guard bits == 64 else { return softwareInterrupt() }
        guard isReturn else {
            emit(0x0F, 0x05)
            return note(.systemCall, "")
        }
        mayBeUser = true
        let isWide = random.oneIn(2)
        var flags: UInt64 = pick([2, 0x202, 0x3202, 0x20_0002, 0x4_4CD7, 0x1_0002, 0x102])
        if flags & 0x100 != 0 { flags = 2 }
        set(3, flags)
        emit(0x49, 0x89, 0xDB)  // mov %rbx, %r11
        var target: UInt64?
        if isWide, random.oneIn(5) {
            traits.insert(.nonCanonicalTarget)
            target = 0x8000_0000_0000
        }
        withNext { draft, next in
            draft.set(1, target ?? next)
            if isWide { draft.emit(0x48) }
            draft.emit(0x0F, 0x07)
        }
        if !isWide { bits = 32 }
        note(.systemReturn, "\(isWide ? "wide " : "")\(short(flags)) \(target.map(short) ?? "next")")
    }

    mutating func sysenter() {
        // In long mode AMD's processors have neither.
        guard bits == 32, !isLong else { return softwareInterrupt() }
        if random.oneIn(2) {
            emit(0x0F, 0x34)
            return note(.sysenter, "enter")
        }
        mayBeUser = true
        withNext { draft, next in
            draft.set(1, 0x4700)
            draft.set(2, next)
            draft.emit(0x0F, 0x35)
        }
        note(.sysenter, "exit")
    }

    mutating func modelSpecific(write: Bool) {
        let indices: [UInt64] = [
            0xC000_0080, 0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0100, 0xC000_0101, 0xC000_0102,
            0x174, 0x175, 0x176, 0x277, 0x277, 0x4000_00FF,
        ]
        let index = pick(indices)
        set(1, index)
        guard write else {
            emit(0x0F, 0x32)
            return note(.readMSR, short(index))
        }
        let canonical: [UInt64] = [ControlLayout.data, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000]
        var value: UInt64
        switch index {
        case 0xC000_0080:
            value = (isLong ? 0xD01 : mode == .pae32 ? 0x801 : 0) ^ pick([0, 1, 1, 0x800, 0x100, 0x400, 2, 1 << 16, 1 << 33])
        case 0xC000_0081: value = pick([0x0018_0008_0000_0000, 0x0023_0010_1234_5678, 0xFFFF_FFFF_FFFF_FFFF])
        case 0xC000_0084:
            value = pick([0, 0x4_7700, 0x4_7FD5, 0xFFFF_FFFF])
            if value & 0x8D5 != 0x8D5 { traits.insert(.arithmeticMask) }
        case 0x277:
            value = pick([
                0x0007_0406_0007_0406, 0, 0x0102_0304_0506_0700, 0x0007_0406_0007_0408, 0x0101_0101_0505_0404, 2,
            ])
        case 0x174: value = pick([0, 8, 0x1B, 3])
        case 0x175, 0x176: value = pick([ControlLayout.data, 0x2480])
        case 0x4000_00FF: value = 0
        default:
            value = pick(canonical)
            if random.oneIn(4) {
                traits.insert(.nonCanonicalBase)
                value = pick([0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF, 1 << 63])
            }
        }
        set(0, value & 0xFFFF_FFFF)
        set(2, value >> 32)
        emit(0x0F, 0x30)
        note(.writeMSR, "\(short(index)) \(short(value))")
    }
}
