internal import CHost

// Instructions that lock the bus, on memory that the TLB knows: the host's own. An entry that may be stored to is RAM and no
// vCPU's code, so that nobody has to be told.

@inline(__always) private func exchange<T: HotWord>(_ host: UInt, _ value: T) -> T {
    T.bitWidth == 64
        ? T(truncatingIfNeeded: chost_exchange64(host, UInt64(truncatingIfNeeded: value)))
        : T(truncatingIfNeeded: chost_exchange32(host, UInt32(truncatingIfNeeded: value)))
}

@inline(__always) private func compareExchange<T: HotWord>(_ host: UInt, _ expected: T, _ desired: T) -> T {
    T.bitWidth == 64
        ? T(truncatingIfNeeded: chost_compare_exchange64(host, UInt64(truncatingIfNeeded: expected), UInt64(truncatingIfNeeded: desired)))
        : T(truncatingIfNeeded: chost_compare_exchange32(host, UInt32(truncatingIfNeeded: expected), UInt32(truncatingIfNeeded: desired)))
}

/// XCHG with memory, which locks with and without the prefix.
@inline(__always) func exchangeM<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, c.effective(o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    c.set(o.src, exchange(reached.host, c.get(T.self, o.src)))
    return next(cpu, op, result, carries)
}

/// LOCK CMPXCHG. The accumulator is written only where it differs.
@inline(__always) func compareExchangeM<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, c.effective(o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    let expected = c.get(T.self, 0)
    let seen = compareExchange(reached.host, expected, c.get(T.self, o.src))
    if seen != expected { c.set(0, seen) }
    let r = expected &- seen
    return next(cpu, op, Flags.result(r), Flags.subtract(expected, seen, r))
}

/// LOCK XADD.
@inline(__always) func exchangeAddM<T: HotWord>(_: T.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let c = CPU(cpu), o = Op(op)
    let reached = c.reachWrite(T.self, c.effective(o))
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    let b = c.get(T.self, o.src)
    var a = Host.load(T.self, reached.host)
    while true {
        let seen = compareExchange(reached.host, a, a &+ b)
        if seen == a { break }
        a = seen
    }
    c.set(o.src, a)
    let r = a &+ b
    return next(cpu, op, Flags.result(r), Flags.add(a, b, r))
}

extension Handlers {
    static func exchangeM(_ size: Int) -> Handler? {
        switch size {
        case 4: { SoftCPU.exchangeM(UInt32.self, $0, $1, $2, $3) }
        case 8: { SoftCPU.exchangeM(UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func compareExchangeM(_ size: Int) -> Handler? {
        switch size {
        case 4: { SoftCPU.compareExchangeM(UInt32.self, $0, $1, $2, $3) }
        case 8: { SoftCPU.compareExchangeM(UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func exchangeAddM(_ size: Int) -> Handler? {
        switch size {
        case 4: { SoftCPU.exchangeAddM(UInt32.self, $0, $1, $2, $3) }
        case 8: { SoftCPU.exchangeAddM(UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }
}
