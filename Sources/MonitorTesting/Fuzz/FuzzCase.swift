internal import VMCore
internal import X86

/// One random case for the interpreter: the bytes of RAM, and the state that the vCPU starts from.
///
/// Most states are such as a kernel could have made, with a few fields replaced by something wild: pure noise faults at its
/// first instruction and shows little. So too the code: encodings that the tables give, then a few bytes of them replaced.
struct FuzzCase {
    /// The kinds of mode that cases start in.
    enum Kind: Int, CaseIterable { case real, unreal, virtual8086, protected16, protected32, paged32, pae, compatibility, long, chaos }

    private(set) var ram: [UInt8]
    private(set) var state = VCPUState()
    let kind: Kind
    /// How many instructions it may execute, and whether one at a time.
    let count: UInt64
    let isStepped: Bool
    private var random: SeededRandom

    private typealias Page = FuzzMachine.Page

    init(seed: UInt64, encoders: borrowing FuzzEncoders) {
        random = SeededRandom(seed: seed)
        // The first draws of neighbouring seeds are alike enough to be skipped.
        for _ in 0..<4 { _ = random.next() }
        kind = Kind(rawValue: random.below(Kind.allCases.count)) ?? .chaos
        isStepped = random.oneIn(4)
        count = UInt64(random.below(isStepped ? 200 : 3000)) &+ 1
        ram = [UInt8](repeating: 0, count: Int(Page.end))
        makeTables()
        makeCode(encoders)
        makeState()
    }

    private mutating func store(_ value: UInt64, _ address: UInt64, count: Int = 8) {
        for position in 0..<count where Int(address) &+ position < ram.count {
            ram[Int(address) &+ position] = UInt8(truncatingIfNeeded: value &>> UInt64(position &* 8))
        }
    }

    // MARK: Values

    /// Something that an address or an operand could interestingly be.
    private mutating func value() -> UInt64 {
        let near = UInt64(random.below(32)) &- 16
        switch random.below(16) {
        case 0: return random.next()
        case 1: return near
        case 2: return Page.code &+ UInt64(random.below(0x2000))
        case 3: return Page.code &+ 0x1000 &+ near
        case 4, 5: return Page.data &+ UInt64(random.below(0x2000))
        case 6: return Page.stack &+ UInt64(random.below(0x1000))
        case 7: return UInt64(random.below(Int(Page.end)))
        case 8: return Page.device &+ UInt64(random.below(0x1000)) &+ near
        case 9: return 0x0000_7FFF_FFFF_FFF8 &+ near
        case 10: return 0x1_0000_0000 &+ near
        case 11: return 0x20_0000 &+ near
        case 12: return UInt64(selector())
        case 13: return 0xFFFF_FFFF_8000_0000 &+ UInt64(random.below(Int(Page.end)))
        case 14: return 1 &<< UInt64(random.below(64))
        default: return UInt64(random.below(0x10000))
        }
    }

    private mutating func selector() -> UInt16 { UInt16(truncatingIfNeeded: random.below(24) &* 8 &+ random.below(4) &+ (random.oneIn(8) ? 4 : 0)) }

    // MARK: Tables

    private mutating func makeTables() {
        makePaging()
        for index in 0..<32 as Range<UInt64> {
            store(descriptor(Int(index)), Page.gdt &+ index &* 8)
            store(descriptor(random.below(32)), Page.ldt &+ index &* 8)
        }
        let isLong = kind == .long || kind == .compatibility || kind == .chaos
        for vector in 0..<256 as Range<UInt64> { makeGate(vector, isLong: isLong) }
        // Real mode's vectors.
        for vector in 0..<256 as Range<UInt64> {
            store(random.oneIn(16) ? random.next() : (Page.handlers &>> 4) &<< 16 | handler(vector), vector &* 4, count: 4)
        }
        for word in 0..<0x100 as Range<UInt64> { store(value(), Page.tss &+ word &* 4, count: 4) }
        if !random.oneIn(4) {
            // Stacks of 64-bit and of 32-bit TSSs are at different places; both lead to the stack page.
            if isLong {
                for at in [4, 12, 20, 36, 44, 52, 60, 68, 76, 84] as [UInt64] where !random.oneIn(16) { store(Page.stack &+ 0xF00, Page.tss &+ at) }
            } else {
                for ring in 0..<3 as Range<UInt64> {
                    store(Page.stack &+ 0xF00, Page.tss &+ 4 &+ ring &* 8, count: 4)
                    store([0x18, 0x19, 0x1A][Int(ring)], Page.tss &+ 8 &+ ring &* 8, count: 4)
                }
            }
            store(UInt64(random.below(0x80)) &<< 16, Page.tss &+ 0x64, count: 4)
        }
        for word in 0..<0x400 as Range<UInt64> { store(value(), Page.data &+ word &* 8) }
        for word in 0..<0x200 as Range<UInt64> { store(random.oneIn(2) ? UInt64(selector()) : value(), Page.stack &+ word &* 8) }
        for word in 0x20..<0x100 as Range<UInt64> { store(value(), Page.ldt &+ word &* 8) }
    }

    private mutating func makePaging() {
        let all: UInt64 = 7
        store(Page.pointers | all, Page.root)
        store(Page.root | all, Page.root &+ 256 &* 8)
        store(Page.pointers | all, Page.root &+ 511 &* 8)
        store(Page.directory | all, Page.pointers)
        store(Page.directory | all, Page.pointers &+ 510 &* 8)
        store(Page.table | all, Page.directory)
        store(0x80 | all, Page.directory &+ 8)
        store(Page.device | 0x80 | all, Page.directory &+ 16)
        store(0x40_0000_0000 | all, Page.directory &+ 24)
        for index in 0..<4 as Range<UInt64> { store(Page.directory | 1, Page.paePointers &+ index &* 8) }
        store(Page.table32 | all, Page.directory32, count: 4)
        store(0x80 | all, Page.directory32 &+ 4, count: 4)
        store(Page.device & 0xFFC0_0000 | 0x80 | all, Page.directory32 &+ (Page.device &>> 22) &* 4, count: 4)
        for index in 0..<512 as Range<UInt64> {
            store(index &<< 12 | all, Page.table &+ index &* 8)
            store(index &<< 12 | all, Page.table32 &+ index &* 4, count: 4)
        }
        // What a kernel would not do.
        guard random.oneIn(2) else { return }
        for _ in 0..<random.below(4) {
            let isLeaf = !random.oneIn(4)
            let table = isLeaf ? (random.oneIn(2) ? Page.table : Page.table32) : UInt64(random.below(7) &+ 1) &<< 12
            store(wildEntry(), table &+ UInt64(random.below(isLeaf ? 24 : 4)) &* 8)
        }
    }

    private mutating func wildEntry() -> UInt64 {
        let bits = UInt64(random.below(0x200)) | 1
        switch random.below(8) {
        case 0: return random.next()
        case 1: return Page.device | bits
        case 2: return Page.local | bits
        case 3: return 0x40_0000_0000 | bits
        case 4: return Page.root &+ UInt64(random.below(7)) &<< 12 | bits
        case 5: return UInt64(random.below(0x16)) &<< 12 | bits | 1 &<< 63
        case 6: return bits & ~1
        default: return UInt64(random.below(0x16)) &<< 12 | bits
        }
    }

    /// A descriptor that suits its place, often; see `makeState` for the places.
    private mutating func descriptor(_ place: Int) -> UInt64 {
        if random.oneIn(30) { return random.next() }
        func segment(_ access: UInt64, _ flags: UInt64, base: UInt64 = 0, limit: UInt64 = 0xFFFFF) -> UInt64 {
            limit & 0xFFFF | base & 0xFF_FFFF &<< 16 | access &<< 40 | (limit &>> 16 & 15) &<< 48 | flags &<< 52 | (base &>> 24) &<< 56
        }
        switch place {
        case 0: return 0
        case 1: return segment(0x9B, 0xC)
        case 2: return segment(0x9B, 0xA)
        case 3: return segment(0x93, 0xC)
        case 4: return segment(0xFB, 0xC)
        case 5: return segment(0xF3, 0xC)
        case 6: return segment(0xFB, 0xA)
        case 7: return segment(0x9B, 0x0, limit: 0xFFFF)
        case 8: return segment(random.oneIn(2) ? 0x8B : 0x89, 0, base: Page.tss, limit: 0x2FF)
        case 9: return 0
        case 10: return segment(0x82, 0, base: Page.ldt, limit: 0xFF)
        case 11: return 0
        case 12: return segment(0x93, 0x0, base: UInt64(random.below(0x1_0000)), limit: UInt64(random.below(0x10000)))
        case 13: return segment(0x97, 0xC, limit: UInt64(random.below(0x20)))
        case 14: return segment(0x9F, 0xC)
        case 15: return segment(0xFF, random.oneIn(2) ? 0xC : 0xA)
        case 16...19:
            // Call gates: offset, selector, count of parameters.
            let target = Page.handlers &+ UInt64(random.below(256))
            let type: UInt64 = random.oneIn(3) ? 0x84 : 0x8C
            return target & 0xFFFF | UInt64(random.below(8) &* 8) &<< 16 | UInt64(random.below(32)) &<< 32
                | (type | UInt64(random.below(4)) &<< 5) &<< 40 | (target &>> 16) &<< 48
        case 20: return UInt64(8 &* 8) &<< 16 | 0x85 &<< 40
        case 21: return segment(0x81, 0, base: Page.tss &+ 0x100, limit: 0x2B)
        case 22: return segment(0x89, 0, base: Page.ldt &+ 0x400, limit: 0x67)
        default: return segment(UInt64(random.below(256)), UInt64(random.below(16)), base: value(), limit: value())
        }
    }

    private mutating func makeGate(_ vector: UInt64, isLong: Bool) {
        let target = random.oneIn(12) ? Page.handlers &+ UInt64(random.below(0x200)) : Page.handlers &+ handler(vector)
        let code: UInt64 = random.oneIn(16) ? UInt64(selector()) : isLong ? 0x10 : random.oneIn(8) ? 0x38 : 0x08
        var type: UInt64 = random.oneIn(2) ? 0xE : 0xF
        if !isLong, random.oneIn(8) { type = random.oneIn(2) ? 5 : 6 }
        if random.oneIn(16) { type = UInt64(random.below(32)) }
        let dpl = UInt64(random.oneIn(2) ? 3 : 0)
        let present: UInt64 = random.oneIn(24) ? 0 : 0x80
        let ist = isLong && random.oneIn(12) ? UInt64(random.below(8)) : 0
        let selector = type == 5 ? [0x40, 0xA8, 0xB0][random.below(3)] : code
        let low = target & 0xFFFF | selector &<< 16 | ist &<< 32 | (type | dpl &<< 5 | present) &<< 40 | (target &>> 16 & 0xFFFF) &<< 48
        if isLong {
            store(low, Page.idt &+ vector &* 16)
            store(random.oneIn(32) ? value() : 0, Page.idt &+ vector &* 16 &+ 8)
        } else {
            store(low, Page.idt &+ vector &* 8)
        }
    }

    /// A vector's handler, from the page's start: 0x40 where there is an error code.
    private func handler(_ vector: UInt64) -> UInt64 {
        kind != .real && kind != .unreal && (vector == 8 || vector >= 10 && vector <= 14 || vector == 17) ? 0x40 : 0
    }

    // MARK: Code

    private var codeMode: CodeMode {
        switch kind {
        case .real, .unreal, .virtual8086, .protected16: .bits16
        case .protected32, .paged32, .pae, .compatibility: .bits32
        case .long, .chaos: .bits64
        }
    }

    private mutating func makeCode(_ encoders: borrowing FuzzEncoders) {
        for at in Int(Page.handlers)..<Int(Page.end) {
            let choices: [UInt8] = [0xCF, 0xCF, 0xCF, 0x48, 0x90, 0x58, 0x5A, 0xC3, 0xEB]
            ram[at] = random.oneIn(12) ? UInt8(truncatingIfNeeded: random.next()) : choices[random.below(choices.count)]
        }
        // The handlers that most vectors lead to: they return to a byte further on, so that everything is tried.
        for at in [0, 0x40] as [Int] {
            var bytes: [UInt8]
            if kind == .long || kind == .compatibility || kind == .chaos {
                bytes = [0x48, 0x83, 0x04, 0x24, 0x01, 0x48, 0xCF]
            } else if kind == .real || kind == .unreal {
                bytes = [0x55, 0x89, 0xE5, 0x83, 0x46, 0x02, 0x01, 0x5D, 0xCF]
            } else {
                bytes = [0x83, 0x04, 0x24, 0x01, 0xCF]
            }
            if at != 0 { bytes = [0x58] + bytes }
            for (index, byte) in bytes.enumerated() { ram[Int(Page.handlers) &+ at &+ index] = byte }
        }
        let isNoise = random.oneIn(10)
        var at = Int(Page.code)
        let end = Int(Page.code) &+ 0x2000
        // Code lies around the start and around the edge between the two pages; the rest is filler.
        for position in at..<end { ram[position] = isNoise ? UInt8(truncatingIfNeeded: random.next()) : 0x90 }
        guard !isNoise else { return }
        for _ in 0..<6 {
            at = Int(Page.code) &+ [0, 0x800, 0xFC0, 0x1800][random.below(4)] &+ random.below(64)
            emit(at, encoders)
        }
        emit(Int(Page.code) &+ start, encoders)
        if random.oneIn(2) {
            for _ in 0..<random.below(8) { ram[Int(Page.code) &+ start &+ random.below(64)] = UInt8(truncatingIfNeeded: random.next()) }
        }
    }

    private var start: Int { isStepped ? 0xFE0 : count & 3 == 0 ? 0xFC8 : 0x100 }

    /// A run of instructions, and a jump back into it.
    private mutating func emit(_ first: Int, _ encoders: borrowing FuzzEncoders) {
        var at = first
        let mode = random.oneIn(12) ? CodeMode.allCases[random.below(3)] : codeMode
        let end = Int(Page.code) &+ 0x2000 &- 32
        for _ in 0..<(4 &+ random.below(20)) {
            guard at < end else { return }
            if random.oneIn(8) {
                // A store to code that is about to run, or that runs: MOV [moffs], eAX.
                let target = UInt64(at &+ random.below(40) &- 8) &- (codeMode == .bits16 ? Page.code : 0)
                ram[at] = 0xA3
                store(target, UInt64(at &+ 1), count: mode == .bits64 ? 8 : mode == .bits32 ? 4 : 2)
                at = at &+ (mode == .bits64 ? 9 : mode == .bits32 ? 5 : 3)
                continue
            }
            for byte in encoders.encode(mode, using: &random) where at < end {
                ram[at] = byte
                at = at &+ 1
            }
        }
        guard random.oneIn(2) else { return }
        ram[at] = 0xEB
        ram[at &+ 1] = UInt8(truncatingIfNeeded: 0 &- random.below(100))
    }

    // MARK: State

    private mutating func makeState() {
        makeGeneral()
        makeSystem()
        for index in 0..<512 { state.extended.append(random.oneIn(3) ? 0 : UInt8(truncatingIfNeeded: random.next() | UInt64(index))) }
        state.extended += [UInt8](repeating: 0, count: 64)
        let msrs: [UInt32] = [
            0x10, 0x3B, 0x48, 0x174, 0x175, 0x176, 0x1A0, 0x2FF, 0x200, 0x201, 0x250, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084,
            0xC000_0102, 0xC000_0103,
        ]
        for _ in 0..<random.below(6) {
            state.msrs.append(ModelSpecificRegister(index: msrs[random.below(msrs.count)], value: value()))
        }
        // SYSCALL and SYSENTER that lead somewhere.
        if random.oneIn(2) {
            state.msrs.append(ModelSpecificRegister(index: 0xC000_0081, value: 0x0023_0010 &<< 32))
            state.msrs.append(ModelSpecificRegister(index: 0xC000_0082, value: Page.handlers))
            state.msrs.append(ModelSpecificRegister(index: 0x174, value: 8))
            state.msrs.append(ModelSpecificRegister(index: 0x176, value: Page.handlers))
            state.msrs.append(ModelSpecificRegister(index: 0x175, value: Page.stack &+ 0x800))
        }
        if random.oneIn(5) {
            state.debug.dr0 = Page.code &+ UInt64(start &+ random.below(16))
            state.debug.dr1 = value()
            state.debug.dr2 = value()
            state.debug.dr3 = random.next()
            state.debug.dr7 = random.next()
            state.debug.dr6 = random.next()
        }
        if random.oneIn(8) {
            state.events.exceptionInjected = random.oneIn(2)
            state.events.interruptInjected = random.oneIn(3)
            state.events.exceptionVector = UInt8(truncatingIfNeeded: random.below(random.oneIn(4) ? 256 : 20))
            state.events.exceptionHasErrorCode = random.oneIn(2)
            state.events.exceptionErrorCode = UInt32(truncatingIfNeeded: value())
            state.events.interruptVector = UInt8(truncatingIfNeeded: random.next())
            state.events.interruptIsSoft = random.oneIn(2)
            state.events.shadow = UInt8(random.below(4))
            state.events.nmiPending = random.oneIn(2)
            state.events.nmiInjected = random.oneIn(4)
            state.events.nmiMasked = random.oneIn(4)
        }
        if random.oneIn(64) { state.runState = .halted }
    }

    private mutating func makeGeneral() {
        state.general.rax = value()
        state.general.rcx = random.oneIn(16) ? value() : UInt64(random.below(300))
        state.general.rdx = value()
        state.general.rbx = value()
        state.general.rsp = random.oneIn(4) ? value() : Page.stack &+ UInt64(random.below(512)) &* 8
        state.general.rbp = random.oneIn(2) ? value() : Page.stack &+ UInt64(random.below(512)) &* 8
        state.general.rsi = value()
        state.general.rdi = value()
        state.general.r8 = value()
        state.general.r9 = value()
        state.general.r10 = value()
        state.general.r11 = value()
        state.general.r12 = value()
        state.general.r13 = value()
        state.general.r14 = value()
        state.general.r15 = value()
        state.general.rip = random.oneIn(20) ? value() : Page.code &+ UInt64(start)
        state.general.rflags = 2 | random.next() & 0xCD5 | UInt64(random.below(4)) &<< 12
        if random.oneIn(10) { state.general.rflags |= random.next() & 0x3D_7FD5 }
    }

    private mutating func makeSystem() {
        var system = SystemRegisters()
        func segment(_ selector: UInt16, type: UInt8, dpl: UInt8, big: Bool = true, long: Bool = false, limit: UInt32 = ~0, base: UInt64 = 0) -> SegmentState {
            var segment = SegmentState()
            segment.selector = selector
            segment.base = base
            segment.limit = limit
            segment.type = type
            segment.dpl = dpl
            segment.present = true
            segment.codeOrData = true
            segment.granular = limit > 0xFFFF
            segment.big = big
            segment.long = long
            return segment
        }
        let isUser = random.oneIn(2)
        let dpl: UInt8 = isUser ? 3 : 0
        var code = segment(isUser ? 0x23 : 0x08, type: 11, dpl: dpl)
        var data = segment(isUser ? 0x2B : 0x18, type: 3, dpl: dpl)
        system.cr0 = 0x33
        system.cr4 = 0x600
        system.cr3 = Page.root
        switch kind {
        case .real, .unreal, .virtual8086:
            let paragraph = Page.code &>> 4
            let isVirtual = kind == .virtual8086
            if !isVirtual { system.cr0 = 0x10 | (random.oneIn(2) ? 0x20 : 0) }
            let limit: UInt32 = kind == .unreal ? ~0 : 0xFFFF
            code = segment(UInt16(paragraph), type: isVirtual ? 3 : 11, dpl: isVirtual ? 3 : 0, big: kind == .unreal && random.oneIn(3), limit: limit, base: Page.code)
            data = segment(UInt16(paragraph), type: 3, dpl: isVirtual ? 3 : 0, big: false, limit: limit, base: Page.code)
            state.general.rip = state.general.rip &- Page.code
            if isVirtual {
                state.general.rflags |= 0x2_0000
                if random.oneIn(2) {
                    system.cr0 |= 0x8000_0000
                    system.cr3 = Page.directory32
                    system.cr4 |= 0x10
                }
            }
            if random.oneIn(2) { state.general.rsp &= 0xFFFF }
        case .protected16:
            code.selector = isUser ? 0x23 : 0x38
            code.big = false
            data.big = random.oneIn(2)
        case .protected32: break
        case .paged32:
            system.cr0 |= 0x8000_0000
            system.cr3 = Page.directory32
            system.cr4 |= random.oneIn(4) ? 0 : 0x10
        case .pae:
            system.cr0 |= 0x8000_0000
            system.cr3 = Page.paePointers
            system.cr4 |= 0x20
            system.efer = random.oneIn(2) ? 0x800 : 0
        case .compatibility, .long, .chaos:
            system.cr0 |= 0x8000_0000
            system.cr4 |= 0x20
            system.efer = 0xD01
            if kind != .compatibility {
                code = segment(isUser ? 0x33 : 0x10, type: 11, dpl: dpl, big: false, long: true)
            } else if random.oneIn(4) {
                code.big = false
            }
        }
        if random.oneIn(3) { system.cr0 |= 0x1_0000 }
        if random.oneIn(3) { system.cr0 |= 0x4_0000 }
        if random.oneIn(8) { system.cr0 ^= 0xC }
        if random.oneIn(3) { system.cr4 |= random.next() & 0x11_0E9C }
        system.cs = code
        system.ss = data
        system.ds = data
        system.es = data
        system.fs = data
        system.gs = data
        system.fs.base = value()
        if !random.oneIn(3) { system.gs.base = value() }
        system.gdtr = TableState(base: Page.gdt, limit: 0xFF)
        system.idtr = TableState(base: kind == .real || kind == .unreal ? 0 : Page.idt, limit: 0xFFF)
        system.tr.selector = 0x40
        system.tr.base = Page.tss
        system.tr.limit = 0x2FF
        system.tr.type = random.oneIn(8) ? 3 : 11
        system.tr.present = true
        system.ldtr.selector = 0x50
        system.ldtr.base = Page.ldt
        system.ldtr.limit = 0xFF
        system.ldtr.type = 2
        system.ldtr.present = true
        makeWild(&system)
        state.system = system
    }

    /// Replaces a few fields by what no kernel would put there.
    private mutating func makeWild(_ system: inout SystemRegisters) {
        for _ in 0..<(kind == .chaos ? random.below(4) &+ 1 : random.oneIn(3) ? random.below(4) : 0) {
            switch random.below(16) {
            case 0: system.gdtr = TableState(base: value(), limit: UInt16(truncatingIfNeeded: random.next()))
            case 1: system.idtr = TableState(base: value(), limit: UInt16(truncatingIfNeeded: random.next()))
            case 2: system.tr.base = value()
            case 3: system.ldtr.base = value()
            case 4: system.cr3 = random.oneIn(2) ? value() : UInt64(random.below(8)) &<< 12
            case 5: system.cr0 ^= 1 &<< UInt64(random.below(32))
            case 6: system.cr4 ^= 0x11_0FFC & 1 &<< UInt64(random.below(22))
            case 7: system.efer ^= [1, 0x100, 0x400, 0x800][random.below(4)]
            case 8: system.ss = wildSegment()
            case 9: system.ds = wildSegment()
            case 10: system.es = wildSegment()
            case 11: system.cs = wildSegment()
            case 12: system.tr = wildSegment()
            case 13: system.gdtr.base = [Page.device, 0x40_0000_0000, 0xFFFF_FFF8, 0x1F_FFF8][random.below(4)]
            case 14: system.idtr.base = [Page.device, 0x40_0000_0000, 0xFFFF_FFF8, 0x1F_FFF8][random.below(4)]
            default: state.general.rsp = [Page.device &+ 0x100, 0x40_0000_0000, 8, 0x20_0004][random.below(4)]
            }
        }
    }

    private mutating func wildSegment() -> SegmentState {
        var segment = SegmentState()
        let bits = random.next()
        segment.selector = UInt16(truncatingIfNeeded: bits)
        segment.base = value()
        segment.limit = UInt32(truncatingIfNeeded: value())
        segment.type = UInt8(bits &>> 16 & 15)
        segment.dpl = UInt8(bits &>> 20 & 3)
        segment.present = bits & 1 &<< 22 != 0
        segment.codeOrData = bits & 1 &<< 23 != 0
        segment.long = bits & 1 &<< 24 != 0
        segment.big = bits & 1 &<< 25 != 0
        segment.granular = bits & 1 &<< 26 != 0
        segment.unusable = bits &>> 27 & 7 == 0
        return segment
    }
}

/// Every row's encoder, for every kind of code: made once.
struct FuzzEncoders {
    private let byMode: [[RowEncoder]]

    init() { byMode = CodeMode.allCases.map { mode in RowID.all.compactMap { RowEncoder($0, mode: mode) } } }

    func encode(_ mode: CodeMode, using random: inout SeededRandom) -> [UInt8] {
        let encoders = byMode[Int(mode.rawValue)]
        while true {
            var encoder = encoders[random.below(encoders.count)]
            // Rows that CPUID does not offer are many, and all one: #UD.
            if encoder.row.map.isVEX || !SoftwareSubject.executes(encoder.row), !random.oneIn(24) { continue }
            encoder.allowsRedundantPrefixes = random.oneIn(10)
            return encoder.encode(using: &random).bytes
        }
    }
}
