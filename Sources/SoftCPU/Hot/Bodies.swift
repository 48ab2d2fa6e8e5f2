// What the hot handlers do, once for all widths and operations. `HandlerTable.swift` names each combination.
//
// Every body ends in a tail call. One that cannot do its work (the TLB does not know the page, the page is code, a device)
// tail-calls a `miss`, so that no body has a frame of its own.

/// An arithmetic or logic operation of two operands.
protocol HotOperation {
    static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ carries: UInt64) -> T
    static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64
}

enum HotAdd: HotOperation {
    @inline(__always) static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ c: UInt64) -> T { a &+ b }
    @inline(__always) static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 { Flags.add(a, b, r) }
}
enum HotAdc: HotOperation {
    @inline(__always) static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ c: UInt64) -> T {
        a &+ b &+ T(truncatingIfNeeded: c &>> 63)
    }
    @inline(__always) static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 { Flags.add(a, b, r) }
}
enum HotSub: HotOperation {
    @inline(__always) static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ c: UInt64) -> T { a &- b }
    @inline(__always) static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 {
        Flags.subtract(a, b, r)
    }
}
enum HotSbb: HotOperation {
    @inline(__always) static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ c: UInt64) -> T {
        a &- b &- T(truncatingIfNeeded: c &>> 63)
    }
    @inline(__always) static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 {
        Flags.subtract(a, b, r)
    }
}
enum HotAnd: HotOperation {
    @inline(__always) static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ c: UInt64) -> T { a & b }
    @inline(__always) static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 { 0 }
}
enum HotOr: HotOperation {
    @inline(__always) static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ c: UInt64) -> T { a | b }
    @inline(__always) static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 { 0 }
}
enum HotXor: HotOperation {
    @inline(__always) static func compute<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ c: UInt64) -> T { a ^ b }
    @inline(__always) static func carries<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 { 0 }
}

typealias HotWord = FixedWidthInteger & UnsignedInteger & BitwiseCopyable

extension CPU {
    @inline(__always) func get<T: HotWord>(_: T.Type, _ n: Int) -> T { Host.load(T.self, address &+ UInt(bitPattern: n) &* 8) }

    /// 32-bit results clear the upper half; 8 and 16-bit ones leave it.
    @inline(__always) func set<T: HotWord>(_ n: Int, _ value: T) {
        if T.bitWidth == 32 {
            Host.store(UInt64(truncatingIfNeeded: value), address &+ UInt(bitPattern: n) &* 8)
        } else {
            Host.store(value, address &+ UInt(bitPattern: n) &* 8)
        }
    }
}

/// Where a memory operand is. Most have no index, and need not look for one.
protocol HotAddress {
    static func of(_ cpu: CPU, _ op: Op) -> UInt64
}
enum HotBased: HotAddress {
    @inline(__always) static func of(_ cpu: CPU, _ op: Op) -> UInt64 { cpu[op.base] &+ op.displacement }
}
enum HotIndexed: HotAddress {
    @inline(__always) static func of(_ cpu: CPU, _ op: Op) -> UInt64 { cpu.effective(op) }
}

// MARK: Misses

/// Enters the operand's page and tries again; what cannot be entered goes the general path. None of these is inlined: they have
/// frames, which the handlers must not get.
@inline(never) func missRead(_ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    if fillForRead(CPU(cpu), Op(op)) { return Op(op).handler(cpu, op, result, carries) }
    return slow(cpu, op, result, carries)
}
@inline(never) func missWrite(_ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    if fillForWrite(CPU(cpu), Op(op)) { return Op(op).handler(cpu, op, result, carries) }
    return slow(cpu, op, result, carries)
}
@inline(never) func missPop(_ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    if fill(CPU(cpu), CPU(cpu)[4], isWrite: false) { return Op(op).handler(cpu, op, result, carries) }
    return slow(cpu, op, result, carries)
}
@inline(never) func missPush(_ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    if fill(CPU(cpu), CPU(cpu)[4] &- 8, isWrite: true) { return Op(op).handler(cpu, op, result, carries) }
    return slow(cpu, op, result, carries)
}

@inline(never) private func fillForRead(_ cpu: CPU, _ op: Op) -> Bool { fill(cpu, cpu.effective(op), isWrite: false) }
@inline(never) private func fillForWrite(_ cpu: CPU, _ op: Op) -> Bool { fill(cpu, cpu.effective(op), isWrite: true) }

/// - Returns: whether the handler will find the page now. Accesses that may cross a page's end never come to it.
@inline(never) private func fill(_ cpu: CPU, _ linear: UInt64, isWrite: Bool) -> Bool {
    guard cpu.s.tlb != cpu.address &+ Layout.emptyTLB, linear & 0xFFF <= 0xFF8, cpu.isCanonical(linear) else { return false }
    let before = isWrite ? cpu.fastWrite(UInt8.self, linear) : cpu.fastRead(UInt8.self, linear)
    // It was known: the miss was another access's.
    guard before == 0 else { return false }
    if cpu.recall(linear, isWrite: isWrite) { return true }
    do throws(Fault) {
        _ = try cpu.translate(linear, PageAccess(isWrite: isWrite, isUser: cpu.isUser))
    } catch {
        return false
    }
    return (isWrite ? cpu.fastWrite(UInt8.self, linear) : cpu.fastRead(UInt8.self, linear)) != 0
}

// MARK: Arithmetic

@inline(__always) func aluRR<O: HotOperation, T: HotWord>(
    _: O.Type, _: T.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst), b = c.get(T.self, o.src)
    let r = O.compute(a, b, carries)
    c.set(o.dst, r)
    if live { return next(cpu, op, Flags.result(r), O.carries(a, b, r)) }
    return next(cpu, op, result, carries)
}

@inline(__always) func aluRI<O: HotOperation, T: HotWord>(
    _: O.Type, _: T.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst), b = T(truncatingIfNeeded: o.immediate)
    let r = O.compute(a, b, carries)
    c.set(o.dst, r)
    if live { return next(cpu, op, Flags.result(r), O.carries(a, b, r)) }
    return next(cpu, op, result, carries)
}

@inline(__always) func aluRM<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    let a = c.get(T.self, o.dst), b = Host.load(T.self, host)
    let r = O.compute(a, b, carries)
    c.set(o.dst, r)
    if live { return next(cpu, op, Flags.result(r), O.carries(a, b, r)) }
    return next(cpu, op, result, carries)
}

@inline(__always) func aluMR<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, A.of(c, o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    let host = reached.host
    let a = Host.load(T.self, host), b = c.get(T.self, o.src)
    let r = O.compute(a, b, carries)
    Host.store(r, host)
    if live { return next(cpu, op, Flags.result(r), O.carries(a, b, r)) }
    return next(cpu, op, result, carries)
}

@inline(__always) func aluMI<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, A.of(c, o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    let host = reached.host
    let a = Host.load(T.self, host), b = T(truncatingIfNeeded: o.immediate)
    let r = O.compute(a, b, carries)
    Host.store(r, host)
    if live { return next(cpu, op, Flags.result(r), O.carries(a, b, r)) }
    return next(cpu, op, result, carries)
}

// MARK: Comparison: the same with no result, and with the branch that follows

@inline(__always) func testRR<O: HotOperation, T: HotWord>(_: O.Type, _: T.Type, _ cpu: UInt, _ op: UInt) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst), b = c.get(T.self, o.src)
    let r = O.compute(a, b, 0)
    return next(cpu, op, Flags.result(r), O.carries(a, b, r))
}
@inline(__always) func testRI<O: HotOperation, T: HotWord>(_: O.Type, _: T.Type, _ cpu: UInt, _ op: UInt) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst), b = T(truncatingIfNeeded: o.immediate)
    let r = O.compute(a, b, 0)
    return next(cpu, op, Flags.result(r), O.carries(a, b, r))
}
@inline(__always) func testRM<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    let a = c.get(T.self, o.dst), b = Host.load(T.self, host)
    let r = O.compute(a, b, 0)
    return next(cpu, op, Flags.result(r), O.carries(a, b, r))
}
@inline(__always) func testMR<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    let a = Host.load(T.self, host), b = c.get(T.self, o.src)
    let r = O.compute(a, b, 0)
    return next(cpu, op, Flags.result(r), O.carries(a, b, r))
}
@inline(__always) func testMI<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    let a = Host.load(T.self, host), b = T(truncatingIfNeeded: o.immediate)
    let r = O.compute(a, b, 0)
    return next(cpu, op, Flags.result(r), O.carries(a, b, r))
}

/// Whether condition `code` holds after `a - b` or `a & b`: told from the operands themselves.
@inline(__always) func holds<O: HotOperation, T: HotWord>(_: O.Type, _ code: UInt8, _ a: T, _ b: T, _ r: T) -> Bool {
    let sign = T.bitWidth &- 1
    if O.self == HotAnd.self {
        let negative = (r &>> T(truncatingIfNeeded: sign)) & 1 != 0
        switch code {
        case 4: return r == 0
        case 5: return r != 0
        case 8, 12: return negative
        case 9, 13: return !negative
        case 14: return r == 0 || negative
        case 15: return r != 0 && !negative
        default: return Flags.condition(code, Flags.result(r), 0)
        }
    }
    let flip = T(1) &<< T(truncatingIfNeeded: sign)
    switch code {
    case 2: return a < b
    case 3: return a >= b
    case 4: return a == b
    case 5: return a != b
    case 6: return a <= b
    case 7: return a > b
    case 12: return a ^ flip < b ^ flip
    case 13: return a ^ flip >= b ^ flip
    case 14: return a ^ flip <= b ^ flip
    case 15: return a ^ flip > b ^ flip
    default: return Flags.condition(code, Flags.result(r), O.carries(a, b, r))
    }
}

@inline(__always) func branchOn<O: HotOperation, T: HotWord>(
    _: O.Type, _ code: UInt8, _ a: T, _ b: T, _ cpu: UInt, _ op: UInt
) {
    let r = O.compute(a, b, 0)
    if holds(O.self, code, a, b, r) { return follow(cpu, op &+ 32, Flags.result(r), O.carries(a, b, r)) }
    return follow(cpu, op &+ 48, Flags.result(r), O.carries(a, b, r))
}

@inline(__always) func branchRR<O: HotOperation, T: HotWord>(
    _: O.Type, _: T.Type, _ code: UInt8, _ cpu: UInt, _ op: UInt
) {
    let c = CPU(cpu), o = Op(op)
    return branchOn(O.self, code, c.get(T.self, o.dst), c.get(T.self, o.src), cpu, op)
}
@inline(__always) func branchRI<O: HotOperation, T: HotWord>(
    _: O.Type, _: T.Type, _ code: UInt8, _ cpu: UInt, _ op: UInt
) {
    let c = CPU(cpu), o = Op(op)
    return branchOn(O.self, code, c.get(T.self, o.dst), T(truncatingIfNeeded: o.immediate), cpu, op)
}
@inline(__always) func branchRM<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ code: UInt8, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    return branchOn(O.self, code, c.get(T.self, o.dst), Host.load(T.self, host), cpu, op)
}
@inline(__always) func branchMR<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ code: UInt8, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    return branchOn(O.self, code, Host.load(T.self, host), c.get(T.self, o.src), cpu, op)
}
@inline(__always) func branchMI<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ code: UInt8, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    return branchOn(O.self, code, Host.load(T.self, host), T(truncatingIfNeeded: o.immediate), cpu, op)
}

/// A conditional branch by itself.
@inline(__always) func branchIf(_ code: UInt8, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    if Flags.condition(code, result, carries) { return follow(cpu, op &+ 32, result, carries) }
    return follow(cpu, op &+ 48, result, carries)
}

// MARK: Moves

@inline(__always) func moveRR<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    c.set(o.dst, c.get(T.self, o.src))
    return next(cpu, op, result, carries)
}
@inline(__always) func load<T: HotWord, A: HotAddress>(_: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    c.set(o.dst, Host.load(T.self, host))
    return next(cpu, op, result, carries)
}
@inline(__always) func store<T: HotWord, A: HotAddress>(_: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, A.of(c, o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    let host = reached.host
    Host.store(c.get(T.self, o.src), host)
    return next(cpu, op, result, carries)
}
@inline(__always) func storeI<T: HotWord, A: HotAddress>(_: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, A.of(c, o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    let host = reached.host
    Host.store(T(truncatingIfNeeded: o.immediate), host)
    return next(cpu, op, result, carries)
}
/// MOVZX, MOVSX, MOVSXD from a register: `S` is the source's type, signed to extend the sign; `T` the destination's.
@inline(__always) func extendR<S: FixedWidthInteger & BitwiseCopyable, T: HotWord>(
    _: S.Type, _: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    c.set(o.dst, T(truncatingIfNeeded: Host.load(S.self, cpu &+ UInt(bitPattern: o.src) &* 8)))
    return next(cpu, op, result, carries)
}
@inline(__always) func extendM<S: FixedWidthInteger & BitwiseCopyable, T: HotWord, A: HotAddress>(
    _: S.Type, _: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(S.self, A.of(c, o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    c.set(o.dst, T(truncatingIfNeeded: Host.load(S.self, host)))
    return next(cpu, op, result, carries)
}
@inline(__always) func loadAddress<T: HotWord, A: HotAddress>(_: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    c.set(o.dst, T(truncatingIfNeeded: A.of(c, o)))
    return next(cpu, op, result, carries)
}
@inline(__always) func moveIf<T: HotWord>(
    _: T.Type, _ code: UInt8, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    c.set(o.dst, Flags.condition(code, result, carries) ? c.get(T.self, o.src) : c.get(T.self, o.dst))
    return next(cpu, op, result, carries)
}
@inline(__always) func loadIf<T: HotWord>(
    _: T.Type, _ code: UInt8, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, c.effective(o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    let value = Host.load(T.self, host)
    c.set(o.dst, Flags.condition(code, result, carries) ? value : c.get(T.self, o.dst))
    return next(cpu, op, result, carries)
}
@inline(__always) func setIf(_ code: UInt8, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    c.set(o.dst, Flags.condition(code, result, carries) ? 1 as UInt8 : 0)
    return next(cpu, op, result, carries)
}

// MARK: One operand

/// INC and DEC leave CF.
@inline(__always) func step<O: HotOperation, T: HotWord>(
    _: O.Type, _: T.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst)
    let r = O.compute(a, 1, 0)
    c.set(o.dst, r)
    if live { return next(cpu, op, Flags.result(r), keepCarry(O.carries(a, 1, r), carries)) }
    return next(cpu, op, result, carries)
}
@inline(__always) func stepM<O: HotOperation, T: HotWord, A: HotAddress>(
    _: O.Type, _: T.Type, _: A.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, A.of(c, o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    let host = reached.host
    let a = Host.load(T.self, host)
    let r = O.compute(a, 1, 0)
    Host.store(r, host)
    if live { return next(cpu, op, Flags.result(r), keepCarry(O.carries(a, 1, r), carries)) }
    return next(cpu, op, result, carries)
}
/// The new carries word with the old one's CF: both top bits turn where it differs, so that OF stays.
@inline(__always) func keepCarry(_ new: UInt64, _ old: UInt64) -> UInt64 {
    let turn = (new ^ old) &>> 63
    return new ^ (turn &<< 63 | turn &<< 62)
}
@inline(__always) func negate<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst)
    let r = 0 &- a
    c.set(o.dst, r)
    return next(cpu, op, Flags.result(r), Flags.subtract(0, a, r))
}
@inline(__always) func invert<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    c.set(o.dst, ~c.get(T.self, o.dst))
    return next(cpu, op, result, carries)
}
@inline(__always) func multiply<T: HotWord>(_: T.Type, _ a: T, _ b: T, _ cpu: UInt, _ op: UInt) {
    let c = CPU(cpu), o = Op(op)
    if T.bitWidth == 64 {
        let x = Int64(truncatingIfNeeded: a), y = Int64(truncatingIfNeeded: b)
        let (product, overflow) = x.multipliedReportingOverflow(by: y)
        c.set(o.dst, T(truncatingIfNeeded: product))
        return next(cpu, op, UInt64(bitPattern: product), overflow ? Flags.carryOverflow(1, 1) : 0)
    }
    let product = Int64(Int32(truncatingIfNeeded: a)) &* Int64(Int32(truncatingIfNeeded: b))
    let r = T(truncatingIfNeeded: product)
    c.set(o.dst, r)
    let lost = Int64(Int32(truncatingIfNeeded: product)) != product
    return next(cpu, op, Flags.result(r), lost ? Flags.carryOverflow(1, 1) : 0)
}
@inline(__always) func multiplyRR<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt) {
    let c = CPU(cpu), o = Op(op)
    return multiply(T.self, c.get(T.self, o.dst), c.get(T.self, o.src), cpu, op)
}
@inline(__always) func multiplyRI<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt) {
    let c = CPU(cpu), o = Op(op)
    return multiply(T.self, c.get(T.self, o.src), T(truncatingIfNeeded: o.immediate), cpu, op)
}
@inline(__always) func multiplyRM<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachRead(T.self, c.effective(o))
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    let host = reached.host
    return multiply(T.self, c.get(T.self, o.dst), Host.load(T.self, host), cpu, op)
}

// MARK: Shifts, 32 and 64 bits

enum HotShift { case left, right, arithmetic }

/// A shift by 1 to 31 (63).
@inline(__always) func shift<T: HotWord>(
    _ kind: HotShift, _: T.Type, _ count: T, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst)
    let bits = T(truncatingIfNeeded: T.bitWidth)
    let r: T
    let carry: T
    let overflow: T
    switch kind {
    case .left:
        r = a &<< count
        carry = (a &>> (bits &- count)) & 1
        overflow = carry ^ (r &>> (bits &- 1))
    case .right:
        r = a &>> count
        carry = (a &>> (count &- 1)) & 1
        overflow = (r &>> (bits &- 1) ^ r &>> (bits &- 2)) & 1
    case .arithmetic:
        if T.bitWidth == 64 {
            r = T(truncatingIfNeeded: Int64(truncatingIfNeeded: a) &>> Int64(truncatingIfNeeded: count))
            carry = T(truncatingIfNeeded: Int64(truncatingIfNeeded: a) &>> Int64(truncatingIfNeeded: count &- 1)) & 1
        } else {
            r = T(truncatingIfNeeded: Int32(truncatingIfNeeded: a) &>> Int32(truncatingIfNeeded: count))
            carry = T(truncatingIfNeeded: Int32(truncatingIfNeeded: a) &>> Int32(truncatingIfNeeded: count &- 1)) & 1
        }
        overflow = 0
    }
    c.set(o.dst, r)
    if live {
        return next(
            cpu, op, Flags.result(r),
            Flags.carryOverflow(UInt64(truncatingIfNeeded: carry), UInt64(truncatingIfNeeded: overflow)))
    }
    return next(cpu, op, result, carries)
}
@inline(__always) func shiftI<T: HotWord>(
    _ kind: HotShift, _: T.Type, _ live: Bool, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    return shift(kind, T.self, T(truncatingIfNeeded: Op(op).immediate), live, cpu, op, result, carries)
}
@inline(__always) func shiftC<T: HotWord>(
    _ kind: HotShift, _: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let count = c.get(T.self, 1) & T(truncatingIfNeeded: T.bitWidth &- 1)
    if count == 0 {
        // No flag changes, but a 32-bit destination's upper half is cleared all the same.
        c.set(o.dst, c.get(T.self, o.dst))
        return next(cpu, op, result, carries)
    }
    return shift(kind, T.self, count, true, cpu, op, result, carries)
}
@inline(__always) func rotateI<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let a = c.get(T.self, o.dst)
    let count = T(truncatingIfNeeded: o.immediate)
    let r = a &<< count | a &>> (T(truncatingIfNeeded: T.bitWidth) &- count)
    c.set(o.dst, r)
    let carry = UInt64(truncatingIfNeeded: r & 1)
    let top = UInt64(truncatingIfNeeded: r &>> T(truncatingIfNeeded: T.bitWidth &- 1))
    return next(cpu, op, result, carries & ~Flags.top | Flags.carryOverflow(carry, carry ^ top))
}

// MARK: Stack and control, 64-bit code

@inline(__always) func pushValue(_ value: UInt64, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu)
    let at = c[4] &- 8
    let reached = c.reachWrite(UInt64.self, at)
    if !reached.isKnown { return missPush(cpu, op, result, carries) }
    let host = reached.host
    Host.store(value, host)
    c[4] = at
    return next(cpu, op, result, carries)
}

extension Handlers {
    static var pushR: Handler { { pushValue(CPU($0)[Op($1).src], $0, $1, $2, $3) } }
    static var pushI: Handler { { pushValue(Op($1).immediate, $0, $1, $2, $3) } }
    static var popR: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu)
            let at = c[4]
            let reached = c.reachRead(UInt64.self, at)
            if !reached.isKnown { return missPop(cpu, op, result, carries) }
            let host = reached.host
            let value = Host.load(UInt64.self, host)
            c[4] = at &+ 8
            c[Op(op).dst] = value
            return next(cpu, op, result, carries)
        }
    }
    static var moveI: Handler {
        { cpu, op, result, carries in
            let o = Op(op)
            CPU(cpu)[o.dst] = o.displacement
            return next(cpu, op, result, carries)
        }
    }
    static var moveI8: Handler {
        { cpu, op, result, carries in
            let o = Op(op)
            CPU(cpu).set(o.dst, UInt8(truncatingIfNeeded: o.immediate))
            return next(cpu, op, result, carries)
        }
    }
    /// `immediate` is the return address's distance from the block's start.
    static var callRelative: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu), o = Op(op)
            let at = c[4] &- 8
            let reached = c.reachWrite(UInt64.self, at)
            if !reached.isKnown { return missPush(cpu, op, result, carries) }
            let host = reached.host
            Host.store(Host.load(UInt64.self, op &+ 48), host)
            c[4] = at
            _ = o
            return follow(cpu, op &+ 32, result, carries)
        }
    }
    static var jumpRelative: Handler { { follow($0, $1 &+ 32, $2, $3) } }
    static var callR: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu)
            let target = c[Op(op).src]
            if !c.isCanonical(target) { return slow(cpu, op, result, carries) }
            let at = c[4] &- 8
            let reached = c.reachWrite(UInt64.self, at)
            if !reached.isKnown { return missPush(cpu, op, result, carries) }
            let host = reached.host
            Host.store(Host.load(UInt64.self, op &+ 48), host)
            c[4] = at
            return jump(cpu, target, result, carries)
        }
    }
    static var callM: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu)
            let pointed = c.reachRead(UInt64.self, c.effective(Op(op)))
            if !pointed.isKnown { return missRead(cpu, op, result, carries) }
            let pointer = pointed.host
            let target = Host.load(UInt64.self, pointer)
            if !c.isCanonical(target) { return slow(cpu, op, result, carries) }
            let at = c[4] &- 8
            let reached = c.reachWrite(UInt64.self, at)
            // The two pages may share an entry: to enter this one and try again would lose the other, for ever.
            if !reached.isKnown { return slow(cpu, op, result, carries) }
            let host = reached.host
            Host.store(Host.load(UInt64.self, op &+ 48), host)
            c[4] = at
            return jump(cpu, target, result, carries)
        }
    }
    static var jumpR: Handler {
        { cpu, op, result, carries in
            let target = CPU(cpu)[Op(op).src]
            if !CPU(cpu).isCanonical(target) { return slow(cpu, op, result, carries) }
            return jump(cpu, target, result, carries)
        }
    }
    static var jumpM: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu)
            let pointed = c.reachRead(UInt64.self, c.effective(Op(op)))
            if !pointed.isKnown { return missRead(cpu, op, result, carries) }
            let pointer = pointed.host
            let target = Host.load(UInt64.self, pointer)
            if !c.isCanonical(target) { return slow(cpu, op, result, carries) }
            return jump(cpu, target, result, carries)
        }
    }
    static var returnNear: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu)
            let at = c[4]
            let reached = c.reachRead(UInt64.self, at)
            if !reached.isKnown { return missPop(cpu, op, result, carries) }
            let host = reached.host
            let target = Host.load(UInt64.self, host)
            if !c.isCanonical(target) { return slow(cpu, op, result, carries) }
            c[4] = at &+ 8
            return jump(cpu, target, result, carries)
        }
    }
    static var leaveFrame: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu)
            let at = c[5]
            let reached = c.reachRead(UInt64.self, at)
            if !reached.isKnown { return slow(cpu, op, result, carries) }
            let host = reached.host
            c[5] = Host.load(UInt64.self, host)
            c[4] = at &+ 8
            return next(cpu, op, result, carries)
        }
    }
    static var signExtendEAX: Handler {
        { cpu, op, result, carries in
            CPU(cpu)[0] = UInt64(bitPattern: Int64(Host.load(Int32.self, cpu)))
            return next(cpu, op, result, carries)
        }
    }
    static var signExtendRAX: Handler {
        { cpu, op, result, carries in
            CPU(cpu)[2] = UInt64(bitPattern: Int64(bitPattern: CPU(cpu)[0]) &>> 63)
            return next(cpu, op, result, carries)
        }
    }
    static var signExtendToEDX: Handler {
        { cpu, op, result, carries in
            CPU(cpu)[2] = UInt64(UInt32(bitPattern: Host.load(Int32.self, cpu) &>> 31))
            return next(cpu, op, result, carries)
        }
    }
    static func swapBytes(_ size: Int) -> Handler? {
        switch size {
        case 4: { CPU($0).set(Op($1).dst, CPU($0).get(UInt32.self, Op($1).dst).byteSwapped); return next($0, $1, $2, $3) }
        case 8: { CPU($0).set(Op($1).dst, CPU($0).get(UInt64.self, Op($1).dst).byteSwapped); return next($0, $1, $2, $3) }
        default: nil
        }
    }
    static var swapGS: Handler {
        { cpu, op, result, carries in
            if CPU(cpu).s.cpl != 0 { return slow(cpu, op, result, carries) }
            CPU(cpu).executeSwapGS()
            return next(cpu, op, result, carries)
        }
    }
    /// By IOPL outside ring 0, which is left to the general path.
    static var clearInterruptFlag: Handler {
        { cpu, op, result, carries in
            if CPU(cpu).s.cpl != 0 { return slow(cpu, op, result, carries) }
            CPU(cpu).s.flags &= ~RFLAGS.if
            return next(cpu, op, result, carries)
        }
    }
    static var exchangeRR: Handler {
        { cpu, op, result, carries in
            let c = CPU(cpu), o = Op(op)
            let a = c[o.dst]
            c[o.dst] = c[o.src]
            c[o.src] = a
            return next(cpu, op, result, carries)
        }
    }
    /// CF becomes the bit; the rest stays.
    static var bitTestI: Handler {
        { cpu, op, result, carries in
            let o = Op(op)
            let bit = CPU(cpu)[o.dst] &>> o.immediate & 1
            return next(cpu, op, result, keepCarry(carries, bit &<< 63))
        }
    }
}
