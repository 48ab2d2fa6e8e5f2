internal import CHost
internal import X86

/// Near branches of the general path.
extension CPU {
    func fence() { chost_fence() }

    /// Cuts an instruction pointer to the operand size and checks it against the code segment.
    @inline(__always)
    private func checkTarget(_ target: UInt64, _ size: Int) throws(Fault) -> UInt64 {
        let target = target & mask(size)
        if is64 {
            guard isCanonical(target) else { throw .protection }
        } else if target > UInt64(cs.limit) {
            throw .protection
        }
        return target
    }

    func branch(_ i: Insn, _ taken: Bool) throws(Fault) -> Flow {
        if !taken { return .end }
        s.rip = try checkTarget(s.nextRIP &+ i.f.immediate, i.operandSize)
        return .branch
    }

    func executeLoop(_ i: Insn) throws(Fault) -> Flow {
        let mask = mask(Int(i.f.addressSize))
        let count = (self[1] &- 1) & mask
        let taken: Bool =
            switch i.f.mnemonic {
            case .loop: count != 0
            case .loope: count != 0 && s.flagResult == 0
            default: count != 0 && s.flagResult != 0
            }
        let flow = try branch(i, taken)
        self[1] = mask == 0xFFFF ? self[1] & ~mask | count : count
        return flow
    }

    func executeJump(_ i: Insn) throws(Fault) -> Flow {
        if i.kind(0) == Insn.Kind.relative { return try branch(i, true) }
        s.rip = try checkTarget(try read(i, 0), i.operandSize)
        return .branch
    }

    func executeCall(_ i: Insn) throws(Fault) -> Flow {
        let size = i.operandSize
        let target =
            i.kind(0) == Insn.Kind.relative
            ? try checkTarget(s.nextRIP &+ i.f.immediate, size) : try checkTarget(try read(i, 0), size)
        try push(s.nextRIP, size)
        s.rip = target
        return .branch
    }

    func executeReturn(_ i: Insn) throws(Fault) -> Flow {
        let size = i.operandSize
        var sp = self[4]
        let target = try checkTarget(try popValue(&sp, size), size)
        if i.kind(0) == Insn.Kind.immediate { sp = sp & ~s.stackMask | (sp &+ i.f.immediate) & s.stackMask }
        self[4] = sp
        s.rip = target
        return .branch
    }
}
