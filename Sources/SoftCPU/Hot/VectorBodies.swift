// What the handlers of vector instructions do: `HotVector`'s operations on registers and on memory that the TLB knows.
// They are selected only for code of a mode in which these instructions are allowed: `Mode.vector`.

/// The address of an XMM register in the image.
@inline(__always) private func vector(_ cpu: UInt, _ number: Int) -> UInt {
    cpu &+ Layout.fx &+ UInt(FXSaveImage.xmm) &+ UInt(bitPattern: number) &* 16
}

@inline(__always) private func general(_ cpu: UInt, _ number: Int) -> UInt { cpu &+ UInt(bitPattern: number) &* 8 }

/// Two vector registers.
@inline(__always) func vectorXX(_ v: HotVector, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let o = Op(op)
    v.execute(
        destination: vector(cpu, o.dst), source: vector(cpu, o.src), immediate: UInt8(truncatingIfNeeded: o.immediate))
    return next(cpu, op, result, carries)
}

/// To a vector register from a general one.
@inline(__always) func vectorXG(_ v: HotVector, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let o = Op(op)
    v.execute(destination: vector(cpu, o.dst), source: general(cpu, o.src))
    return next(cpu, op, result, carries)
}

/// To a general register from a vector one.
@inline(__always) func vectorGX(_ v: HotVector, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64) {
    let o = Op(op)
    v.execute(destination: general(cpu, o.dst), source: vector(cpu, o.src))
    return next(cpu, op, result, carries)
}

/// To a vector register from memory: `T` is as large as the operand.
@inline(__always) func vectorXM<T, A: HotAddress>(
    _ v: HotVector, _: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let linear = A.of(c, o)
    if linear & o.alignment != 0 { return slow(cpu, op, result, carries) }
    let reached = c.reachRead(T.self, linear)
    if !reached.isKnown { return missRead(cpu, op, result, carries) }
    v.execute(destination: vector(cpu, o.dst), source: reached.host, immediate: UInt8(truncatingIfNeeded: o.immediate))
    return next(cpu, op, result, carries)
}

/// To memory from a vector register.
@inline(__always) func vectorMX<T, A: HotAddress>(
    _ v: HotVector, _: T.Type, _: A.Type, _ cpu: UInt, _ op: UInt, _ result: UInt64, _ carries: UInt64
) {
    let c = CPU(cpu), o = Op(op)
    let linear = A.of(c, o)
    if linear & o.alignment != 0 { return slow(cpu, op, result, carries) }
    let reached = c.reachWrite(T.self, linear)
    if !reached.isKnown { return missWrite(cpu, op, result, carries) }
    v.execute(destination: reached.host, source: vector(cpu, o.src))
    return next(cpu, op, result, carries)
}
