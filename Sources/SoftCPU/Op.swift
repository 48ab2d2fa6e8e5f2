/// What executes one operation: the state's and the operation's addresses, and the two words of the arithmetic flags,
/// which stay in registers from one handler to the next. It ends in a call of the next handler, which the optimiser makes
/// a jump; to leave, it returns.
typealias Handler = @convention(c) (_ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) -> Void

/// One operation of a block.
///
/// ```
///  0  handler
///  8  dst, src, base, index: register numbers (16: zero; base may name a segment's base, see `Op.segmentBase`)
/// 12  log2 of the scale; 13 number in the block; 14 offset of the instruction's first byte in the block
/// 16  immediate, 32 bits, sign-extended; 20 the table row it was made from, 22 whether it is two instructions; 23 which
///     low bits of a vector operand's address must be clear
/// 24  displacement, or the whole address of a RIP-relative operand
/// 32  of operations that end a block: where to when taken, its block or 0, where to when not, its block or 0
/// ```
/// Operations of the general path have an `Insn` from 32 on.
@safe struct Op: BitwiseCopyable {
    let address: UInt
    @inline(__always) init(_ address: UInt) { self.address = address }

    static var size: UInt { 32 }
    static var branchSize: UInt { 64 }
    static var generalSize: UInt { 32 + Insn.size }
    /// The "register number" under which FS's and GS's base are reached as a base register.
    static func segmentBase(_ segment: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: (Layout.segments + UInt(segment) * 32) / 8)
    }

    @inline(__always) var handler: Handler {
        unsafe unsafeBitCast(Host.load(UInt.self, address), to: Handler.self)
    }
    /// A handler's address is often that of a jump to where a closure's code lies: the jump is made here, once.
    func setHandler(_ handler: Handler) {
        var code = unsafe unsafeBitCast(handler, to: UInt.self)
        if Host.load(UInt8.self, code) == 0xE9 { code = code &+ 5 &+ UInt(bitPattern: Int(Host.load(Int32.self, code &+ 1))) }
        Host.store(code, address)
    }

    @inline(__always) var dst: Int { Int(Host.load(UInt8.self, address &+ 8)) }
    @inline(__always) var src: Int { Int(Host.load(UInt8.self, address &+ 9)) }
    @inline(__always) var base: Int { Int(Host.load(UInt8.self, address &+ 10)) }
    @inline(__always) var index: Int { Int(Host.load(UInt8.self, address &+ 11)) }
    @inline(__always) var scale: UInt64 { UInt64(Host.load(UInt8.self, address &+ 12)) }
    @inline(__always) var number: UInt8 { Host.load(UInt8.self, address &+ 13) }
    @inline(__always) var offset: UInt16 { Host.load(UInt16.self, address &+ 14) }
    @inline(__always) var immediate: UInt64 { UInt64(bitPattern: Int64(Host.load(Int32.self, address &+ 16))) }
    var row: UInt16 { Host.load(UInt16.self, address &+ 20) }
    var isFused: Bool { Host.load(UInt8.self, address &+ 22) != 0 }
    @inline(__always) var alignment: UInt64 { UInt64(Host.load(UInt8.self, address &+ 23)) }
    @inline(__always) var displacement: UInt64 { Host.load(UInt64.self, address &+ 24) }

    /// What is not the handler, in one go.
    struct Fields: BitwiseCopyable {
        var dst: UInt8 = 16, src: UInt8 = 16, base: UInt8 = 16, index: UInt8 = 16
        var scale: UInt8 = 0, number: UInt8 = 0
        var offset: UInt16 = 0
        var immediate: Int32 = 0
        var row: UInt16 = 0
        var fused: UInt8 = 0
        var alignment: UInt8 = 0
        var displacement: UInt64 = 0
    }

    func set(_ handler: Handler, _ fields: Fields) {
        setHandler(handler)
        Host.store(fields, address &+ 8)
    }

    /// Sets where a block's end leads.
    func setExits(taken: UInt64, fallThrough: UInt64) {
        Host.store(taken, address &+ 32)
        Host.store(0 as UInt, address &+ 40)
        Host.store(fallThrough, address &+ 48)
        Host.store(0 as UInt, address &+ 56)
    }
}

extension CPU {
    /// The memory operand's linear address: flat or 64-bit code only.
    @inline(__always) func effective(_ op: Op) -> UInt64 {
        self[op.base] &+ self[op.index] &<< op.scale &+ op.displacement
    }
}

@inline(__always) func next(_ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    return Op(op &+ Op.size).handler(cpu, op &+ Op.size, result, carries)
}

/// Leaves the handlers; `rip` is set, `executed` is how many instructions of the block were.
@inline(__always) func leave(_ cpu: CPU, _ result: UInt64, _ carries: UInt64, executed: UInt32) {
    cpu.s.flagResult = result
    cpu.s.flagCarries = carries
    let count = Block(cpu.s.block).h.count
    cpu.s.instructions &-= UInt64(count &- executed)
}

/// Goes to where a block ends, by its link where that is known.
///
/// - Parameter exit: the operation's address plus 32 (taken) or 48 (not taken).
@inline(__always) func follow(_ cpu: UInt, _ exit: UInt, _ result: UInt64, _ carries: UInt64) {
    let state = CPU(cpu)
    let target = Host.load(UInt.self, exit &+ 8)
    if target != 0, Host.load(UInt32.self, state.s.attention) == 0 {
        let block = Block(target)
        if block.h.generation == state.s.generation {
            return enter(cpu, target, result, carries)
        }
    }
    state.s.rip = Host.load(UInt64.self, exit)
    state.s.link = exit &+ 8
    state.s.flagResult = result
    state.s.flagCarries = carries
}

@inline(__always) func enter(_ cpu: UInt, _ target: UInt, _ result: UInt64, _ carries: UInt64) {
    let state = CPU(cpu)
    let block = Block(target)
    state.s.block = target
    state.s.instructions &+= UInt64(block.h.count)
    return Op(block.firstOp).handler(cpu, block.firstOp, result, carries)
}

/// Goes to an address that is only known now: by the jump cache where it knows.
@inline(__always) func jump(_ cpu: UInt, _ target: UInt64, _ result: UInt64, _ carries: UInt64) {
    let state = CPU(cpu)
    let known = Host.load(UInt.self, state.jumpSlot(target))
    if known != 0, Host.load(UInt32.self, state.s.attention) == 0 {
        let block = Block(known)
        // 64-bit code only: the linear address is the instruction pointer.
        if block.h.linear == target, block.h.generation == state.s.generation, block.h.mode == state.s.mode {
            return enter(cpu, known, result, carries)
        }
    }
    state.s.rip = target
    state.s.link = 0
    state.s.flagResult = result
    state.s.flagCarries = carries
}

/// The handlers that are not of a particular instruction.
enum Handlers {
    /// A block that was dropped, reached by an old link.
    static var stale: Handler {
        { cpu, op, result, carries in
            let state = CPU(cpu)
            let block = Block(op &- Block.headerSize)
            state.s.rip = block.h.rip
            state.s.instructions &-= UInt64(block.h.count)
            state.s.link = 0
            state.s.flagResult = result
            state.s.flagCarries = carries
        }
    }

    /// The end of a block that no branch ends.
    static var fallThrough: Handler {
        { cpu, op, result, carries in follow(cpu, op &+ 32, result, carries) }
    }

    /// The end of a block of one instruction that is not kept.
    static var stop: Handler {
        { cpu, op, result, carries in
            let state = CPU(cpu)
            state.s.rip = Host.load(UInt64.self, op &+ 32)
            state.s.link = 0
            state.s.flagResult = result
            state.s.flagCarries = carries
        }
    }

    /// An instruction of the general path.
    static var general: Handler {
        { cpu, op, result, carries in
            let state = CPU(cpu)
            state.s.flagResult = result
            state.s.flagCarries = carries
            guard executeGeneral(state, Op(op), Insn(op &+ 32)) else { return }
            let after = op &+ Op.generalSize
            return Op(after).handler(cpu, after, state.s.flagResult, state.s.flagCarries)
        }
    }
}

/// A hot operation that its handler cannot finish: the instruction is decoded again and goes the general path.
@inline(never) func slow(_ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let state = CPU(cpu)
    state.s.flagResult = result
    state.s.flagCarries = carries
    guard executeAgain(state, Op(op)) else { return }
    return next(cpu, op, state.s.flagResult, state.s.flagCarries)
}

/// - Returns: whether the block goes on with the next operation.
@inline(never)
private func executeGeneral(_ cpu: CPU, _ op: Op, _ insn: Insn) -> Bool {
    let rip = Block(cpu.s.block).h.rip &+ UInt64(op.offset)
    return finish(cpu, op, insn, rip)
}

@inline(__always)
private func finish(_ cpu: CPU, _ op: Op, _ insn: Insn, _ rip: UInt64) -> Bool {
    let mode = cpu.s.mode
    let mask: UInt64 = mode & Mode.bits64 != 0 ? ~0 : mode & Mode.bits32 != 0 ? 0xFFFF_FFFF : 0xFFFF
    cpu.s.rip = rip & mask
    cpu.s.nextRIP = (rip &+ insn.length) & mask
    let flow: Flow
    let number = UInt32(op.number)
    let block = Block(cpu.s.block)
    let count = block.h.count
    do throws(Fault) {
        flow = try cpu.execute(insn)
    } catch {
        cpu.s.fault = error
        cpu.s.leave = Leave.fault
        cpu.s.instructions &-= UInt64(count &- number &- 1)
        cpu.s.link = 0
        return false
    }
    switch flow {
    case .next:
        // A kick from within a device's access is seen before the next instruction.
        if cpu.s.codeChanged == 0, Host.load(UInt32.self, cpu.s.attention) == 0 { return true }
        cpu.s.rip = cpu.s.nextRIP
    case .end:
        cpu.s.rip = cpu.s.nextRIP
    case .branch: break
    }
    cpu.s.link = 0
    cpu.s.instructions &-= UInt64(count &- number &- 1)
    return false
}

/// Decodes the instruction of a hot operation again and executes it.
@inline(never)
private func executeAgain(_ cpu: CPU, _ op: Op) -> Bool {
    let block = Block(cpu.s.block)
    let rip = block.h.rip &+ UInt64(op.offset)
    let insn = Insn(cpu.address &+ Layout.scratchInsn)
    guard cpu.decodeAgain(block, op, into: insn) else {
        // Somebody else rewrote it meanwhile: what is there now is what is executed.
        if let page = cpu.ramPage(block.h.physical) { cpu.dropBlocks(onPage: page) }
        cpu.s.rip = rip
        cpu.s.link = 0
        cpu.s.codeChanged = 1
        cpu.s.instructions &-= UInt64(block.h.count &- UInt32(op.number))
        return false
    }
    guard finish(cpu, op, insn, rip) else { return false }
    if op.isFused {
        cpu.s.rip = cpu.s.nextRIP
        cpu.s.link = 0
        cpu.s.instructions &-= UInt64(block.h.count &- UInt32(op.number) &- 1)
        return false
    }
    return true
}
