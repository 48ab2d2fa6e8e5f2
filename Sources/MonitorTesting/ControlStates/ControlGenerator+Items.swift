extension ControlDraft {
    mutating func drawItem() {
        let kind = pick(ControlItem.allCases)
        switch kind {
        case .loadSegment: loadSegment()
        case .storeSegment: storeSegment()
        case .loadTable, .storeTable: table(load: kind == .loadTable)
        case .loadSystemSegment: systemSegment()
        case .verify: verify()
        case .writeControl: writeControl()
        case .readControl: readControl()
        case .machineStatus: machineStatus()
        case .debugRegister: debugRegister()
        case .farJump, .farCall: farBranch(isCall: kind == .farCall)
        case .farReturn: farReturn()
        case .interruptReturn: interruptReturn()
        case .softwareInterrupt: softwareInterrupt()
        case .systemCall, .systemReturn: systemCall(isReturn: kind == .systemReturn)
        case .sysenter: sysenter()
        case .readMSR, .writeMSR: modelSpecific(write: kind == .writeMSR)
        case .memoryAccess: memoryAccess()
        case .pageEdit: pageEdit()
        case .flags: flags()
        case .swapGS:
            emit(0x0F, 0x01, 0xF8)
            note(.swapGS, "")
        case .undefined: undefined()
        case .stackAccess: stackAccess()
        case .protectedMode: protectedMode()
        }
    }

    // MARK: Segments and tables

    private mutating func loadSegment() {
        let selector = UInt64(mode == .real16 && bits == 16 ? UInt16(pick([0, 0, 0x10, 0x123, 0xFFFF])) : drawSelector())
        // ES, CS, SS, DS, FS, GS. MOV to CS is undefined.
        let register = UInt8(pick([0, 2, 2, 3, 4, 5, 0, 3, 2, 4, 5, 1]))
        if mode != .real16 || bits != 16, ![0x10, 0x20, 0x23].contains(selector) { hasOddSegment = true }
        switch random.below(4) {
        case 0 where register >= 4:
            push(selector, size: bits / 8)
            emit(0x0F, register == 4 ? 0xA1 : 0xA9)
            note(.loadSegment, "pop \(register) \(short(selector))")
        case 1 where register == 2 || register >= 4:
            let pointer = place(Self.bytes((0x4700, 4), (selector, 2)))
            if bits == 16 { emit(0x66) }
            emit(0x0F, register == 2 ? 0xB2 : register == 4 ? 0xB4 : 0xB5)
            absolute(register == 2 ? 4 : 0, pointer)
            note(.loadSegment, "far pointer \(register) \(short(selector))")
        default:
            set(0, selector)
            emit(0x8E, 0xC0 | register << 3)
            note(.loadSegment, "mov \(register) \(short(selector))")
        }
    }

    private mutating func storeSegment() {
        let register = UInt8(random.below(6))
        if random.oneIn(3), register >= 4 {
            emit(0x0F, register == 4 ? 0xA0 : 0xA8)
        } else if random.oneIn(2) {
            emit(0x8C, 0xC2 | register << 3)
        } else {
            emit(0x8C)
            absolute(register, ControlLayout.data + 0x10)
        }
        note(.storeSegment, "\(register)")
    }

    private mutating func table(load: Bool) {
        let isInterrupt = random.oneIn(2)
        emit(0x0F, 0x01)
        guard load else {
            let isAimed = random.oneIn(4) && bits > 16 && isPaged
            let page = isAimed ? ControlLayout.test + UInt64(random.below(16)) << 12 : ControlLayout.data
            absolute(isInterrupt ? 1 : 0, page + 0x20)
            return note(.storeTable, isInterrupt ? "idt" : "gdt")
        }
        var base = isInterrupt ? (mode == .real16 ? 0 : ControlLayout.idt) : ControlLayout.gdt
        var limit: UInt64 = isInterrupt ? pick([0x3FF, 0x3FF, 0x1FF, 0x6F, 0x0F]) : pick([0xDF, 0xFFFF, 0x7F, 0x27])
        if isInterrupt, limit == 0x3FF, mode != .long64, mode != .real16 { limit = 0x1FF }
        if bits == 64, random.oneIn(6) {
            traits.insert(.nonCanonicalBase)
            base |= pick([0x8000_0000_0000, 1 << 63])
        }
        if random.oneIn(8) { limit = 0 }
        absolute(isInterrupt ? 3 : 2, place(Self.bytes((limit, 2), (base, 8))))
        note(.loadTable, "\(isInterrupt ? "idt" : "gdt") \(short(base)) \(short(limit))")
    }

    private mutating func systemSegment() {
        let selector = UInt64(random.oneIn(2) ? pick([0x50, 0x60, 0x40, 0x60, 0] as [UInt16]) : drawSelector())
        let form = UInt8(random.below(4))
        if form == 3, selector & 0xFFFC == 0 { traits.insert(.nullTask) }
        set(0, selector)
        // SLDT, STR, LLDT, LTR.
        emit(0x0F, 0x00, 0xC0 | form << 3)
        note(.loadSystemSegment, "\(["sldt", "str", "lldt", "ltr"][Int(form)]) \(short(selector))")
    }

    private mutating func verify() {
        let selector = UInt64(drawSelector())
        set(0, selector)
        switch random.below(4) {
        case 0: emit(0x0F, 0x00, 0xE0)
        case 1: emit(0x0F, 0x00, 0xE8)
        case 2:
            set(1, 0x5555_5555)
            // LAR, and without the four bits that it leaves undefined.
            emit(0x0F, 0x02, 0xC8, 0x9C)
            if bits == 16 { emit(0x66) }
            emit(0x81, 0xE1)
            emit(0xF0_FF00, size: 4)
            emit(0x38, 0xC0)
        default:
            set(1, 0x5555_5555)
            emit(0x0F, 0x03, 0xC8)
        }
        // The next such keeps this one's ZF from view.
        emit(0x9C)
        note(.verify, short(selector))
    }

    // MARK: Control and debug registers

    private mutating func writeControl() {
        // Where CPL is 3 as well, which of the two faults comes first is not said anywhere.
        let number: UInt8 = pick([0, 0, 0, 2, 3, 3, 4, 4, 4, 8] + (mayBeUser ? [] : [1, 5]))
        var value: UInt64
        switch number {
        case 0:
            let base: UInt64 = mode == .real16 ? 0x30 : mode == .flat32 ? 0x31 : 0x8000_0031
            value = base ^ pick([0, 0x1_0000, 0x4_0000, 8, 2, 4, 0x2000_0000, 0x4000_0000, 0x6000_0000, 0x20, 0x10])
            if random.oneIn(5) { value ^= pick([0x8000_0000, 0x8000_0001, 1 << 32, 1 << 6, 1 << 31]) }
        case 3:
            value = isLong ? ControlLayout.pml4 : mode == .pae32 ? ControlLayout.pdpt : ControlLayout.directory
            value |= pick([0, 0, 0, 8, 0x10, 0x18, 1 << 52, 1 << 63, 1 << 62])
        case 4:
            let base: UInt64 = isLong || mode == .pae32 ? 0x620 : mode == .paged32 ? 0x610 : 0x600
            value = base ^ pick([0, 4, 8, 0x80, 0x40, 0x200, 0x400, 0x10])
            if random.oneIn(4) { value ^= pick([1 << 31, 1 << 40, 0x20, 1 << 15, 1 << 63]) }
        case 8: value = UInt64(random.below(20))
        default: value = 0x1234_5678
        }
        if number == 8, bits != 64 { return readControl() }
        if number == 3, value >> 32 != 0, isLong { traits.insert(.reservedCR3) }
        if value >> 32 != 0, number == 0 || number == 4 { traits.insert(.highControlBits) }
        if mode == .pae32, number == 0 || number == 4 { traits.insert(.pointersReloaded) }
        set(0, value)
        if number == 8 { emit(0x44) }
        emit(0x0F, 0x22, 0xC0 | (number & 7) << 3)
        note(.writeControl, "cr\(number) \(short(value))")
    }

    private mutating func readControl() {
        let number: UInt8 = pick([0, 2, 3, 4, 4] + (mayBeUser ? [] : [1, 6]))
        emit(0x0F, 0x20, 0xC1 | number << 3)
        note(.readControl, "cr\(number)")
    }

    private mutating func machineStatus() {
        switch random.below(5) {
        case 0: emit(0x0F, 0x06)
        case 1: emit(0x0F, 0x01, 0xE1)
        case 2:
            emit(0x0F, 0x01)
            absolute(4, ControlLayout.data + 0x30)
        default:
            let value = UInt64(pick([0, 1, 0xB, 0xFFFF, 0xA, 9, 5]))
            // Real mode's code goes on in protected mode only where that is what is tried.
            set(0, mode == .real16 ? value & ~1 : value)
            emit(0x0F, 0x01, 0xF0)
        }
        note(.machineStatus, "")
    }

    private mutating func debugRegister() {
        let number = UInt8(pick([0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 7]))
        if random.oneIn(3) {
            emit(0x0F, 0x21, 0xC1 | number << 3)
            return note(.debugRegister, "read \(number)")
        }
        var value: UInt64
        switch number {
        // QEMU's TCG keeps bit 12 of what is written, a bit that is always 0.
        case 4, 6: value = pick([0, 0xFFFF_0FF0, 0xFFFF_EFFF, 0x400F])
        case 5, 7: value = pick([0x400, 0, 0x700, 0x2400, 0xFFFF_0000, 0x300])
        default: value = pick([ControlLayout.data, ControlLayout.data + 0x10, 0x1234, 0xFFFF_8000_0000_0000])
        }
        if value == 0x2400 { traits.insert(.generalDetect) }
        if bits == 64, number >= 4, random.oneIn(5) { value |= 1 << 32 }
        set(0, value)
        emit(0x0F, 0x23, 0xC0 | number << 3)
        note(.debugRegister, "write \(number) \(short(value))")
    }

    // MARK: Memory

    /// An address in one of the test pages, or in a large page, or in none.
    mutating func drawTestAddress(_ size: UInt64) -> UInt64 {
        let large: [UInt64] =
            switch mode {
            case .long64: [0x20_6000, 0x60_6000, 0x80_6000, 0x4000_6000]
            case .pae32: [0x20_6000, 0x60_6000, 0x80_6000, 0x4000_6000]
            case .paged32: [0x80_6000, 0xC0_6000, 0x100_6000]
            case .flat32, .real16: [ControlLayout.data]
            }
        if !isPaged { return ControlLayout.data + 0x100 }
        if random.oneIn(5) { return pick(large) + 0x110 }
        let page = ControlLayout.test + UInt64(random.below(16)) << 12
        return page + (random.oneIn(8) ? 0x1000 - size / 2 : 0x118)
    }

    private mutating func memoryAccess() {
        var address = drawTestAddress(4)
        if bits == 64, random.oneIn(8) {
            address = pick([0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFF0])
        }
        access(address)
        note(.memoryAccess, short(address))
    }

    private mutating func access(_ address: UInt64) {
        set(1, address)
        let segment: UInt8? = random.oneIn(6) ? pick([0x26, 0x36, 0x2E, 0x64, 0x65]) : nil
        if bits == 16 { emit(0x67) }
        let form = random.below(bits == 16 ? 4 : 5)
        if bits != 64, segment == 0x2E { traits.insert(.segmentLimits) }
        if form == 2 { traits.insert(.readModifyWrite) }
        if form == 4, bits == 64, address >> 47 != 0 { traits.insert(.nonCanonicalTarget) }
        if let segment, form < 4 { emit(segment) }
        switch form {
        case 0: emit(0x8B, 0x11)  // mov (%ecx), %edx
        case 1: emit(0x89, 0x19)  // mov %ebx, (%ecx)
        case 2: emit(0x01, 0x19)  // add %ebx, (%ecx)
        case 3: emit(0xF6, 0x01, 0x01)  // testb $1, (%ecx)
        default:
            // A call to a page of RETs.
            if isPaged { emit(0xFF, 0xD1) } else { emit(0x8B, 0x11) }
        }
        // cmp %al, %al: no flag stays undefined.
        emit(0x38, 0xC0)
    }

    private mutating func pageEdit() {
        guard isPaged else { return memoryAccess() }
        let size: UInt64 = mode == .paged32 ? 4 : 8
        let index = UInt64(random.below(8))
        if random.oneIn(4) {
            let entry = ControlLayout.directory + size * (mode == .paged32 ? 1 : 2)
            let value = ControlLayout.testTable | pick([7, 5, 3, 1, 0, 0x67, 0x47])
            store(value, at: entry)
            emit(0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8)  // CR3 again
            note(.pageEdit, "directory \(short(value))")
        } else {
            let value = ControlLayout.data | pick([7, 5, 3, 1, 0, 0x67, 0x27, 0x107])
            store(value, at: ControlLayout.testTable + size * index)
            set(1, ControlLayout.test + index << 12)
            if bits == 16 { emit(0x67) }
            emit(0x0F, 0x01, 0x39)  // invlpg (%ecx)
            note(.pageEdit, "\(index) \(short(value))")
        }
        access(ControlLayout.test + index << 12 + 0x118)
        if random.oneIn(3) { access(ControlLayout.test + index << 12 + 0x11C) }
    }

    private mutating func store(_ value: UInt64, at address: UInt64) {
        if bits == 16 { emit(0x66) }
        emit(0xC7)
        absolute(0, address)
        emit(value, size: 4)
    }

    private mutating func stackAccess() {
        let stack: UInt64
        if bits == 64, random.oneIn(3) {
            traits.insert(.nonCanonicalStack)
            stack = 0x8000_0000_0000
        } else {
            let test = ControlLayout.test
            stack = isPaged ? pick([0x3F00_0010, test + 0x1100, test + 0x3100, 0x4702]) : pick([0x4702, 0x4600])
        }
        set(4, stack)
        switch random.below(4) {
        case 0: emit(0x50)
        case 1: emit(0x58)
        case 2: emit(0x9C)
        default:
            emit(0xE8, 0, 0)
            if bits != 16 { emit(0, 0) }
        }
        note(.stackAccess, short(stack))
    }

    // MARK: The rest

    private mutating func undefined() {
        switch random.below(4) {
        case 0: emit(0x0F, 0x0B)
        case 1: emit(0x0F, 0x04)
        case 2: emit(0xF0, 0x90)
        default: emit(0x0F, 0xFF, 0xC0)
        }
        note(.undefined, "")
    }

    private mutating func flags() {
        let size = random.oneIn(4) ? 2 : bits / 8
        var value: UInt64 = pick([2, 0x202, 0x102, 0x4002, 0x4_0002, 0x3002, 0x20_0002, 0x1_0002, 0xCD7, 0x7202, 0x2_0002, 0])
        if size == 2 { value &= 0xFFFF }
        if value & 0x100 != 0 { traits.insert(.debugException) }
        push(value, size: size)
        if size * 8 != bits, size == 2 { emit(0x66) }
        emit(0x9D)
        if random.oneIn(3) { emit(0x9C) }
        // After STI, QEMU's TCG takes a single step's trap only one instruction later.
        if random.oneIn(4) { emit(value & 0x100 != 0 ? 0xFA : pick([0xFA, 0xFB])) }
        note(.flags, short(value))
    }

    /// From real mode into protected mode without paging.
    private mutating func protectedMode() {
        guard mode == .real16, bits == 16 else { return readControl() }
        emit(0x0F, 0x20, 0xC0)
        emit(0x66, 0x83, 0xC8, 0x01)  // or $1, %eax
        emit(0x0F, 0x22, 0xC0)
        note(.protectedMode, "")
        guard !random.oneIn(4) else { return }
        let wide = random.oneIn(2)
        withNext { draft, next in
            if wide { draft.emit(0x66) }
            draft.emit(0xEA)
            draft.emit(next, size: wide ? 4 : 2)
            draft.emit(wide ? 0x18 : 0x38, size: 2)
        }
        if wide { bits = 32 }
    }
}
