internal import X86

/// PUSH, POP and their family, ENTER and LEAVE.
extension CPU {
    /// Pushes onto SS:rSP; `sp` moves only when the store went through.
    @inline(__always)
    func pushValue(_ sp: inout UInt64, _ value: UInt64, _ size: Int, user: Bool) throws(Fault) {
        let next = (sp &- UInt64(truncatingIfNeeded: size)) & s.stackMask
        try store(linear(SegmentIndex.ss, next, size, write: true), size, value, user: user)
        sp = sp & ~s.stackMask | next
    }

    /// Pops from SS:rSP at `sp`.
    @inline(__always)
    func popValue(_ sp: inout UInt64, _ size: Int) throws(Fault) -> UInt64 {
        let value = try load(linear(SegmentIndex.ss, sp & s.stackMask, size, write: false), size, user: isUser)
        sp = sp & ~s.stackMask | (sp &+ UInt64(truncatingIfNeeded: size)) & s.stackMask
        return value
    }

    func push(_ value: UInt64, _ size: Int) throws(Fault) {
        var sp = self[4]
        try pushValue(&sp, value, size, user: isUser)
        self[4] = sp
    }

    func executePush(_ i: Insn) throws(Fault) {
        var value = try read(i, 0)
        let size = i.operandSize
        if i.kind(0) == Insn.Kind.immediate, size == 8 {
            value = UInt64(bitPattern: Int64(bitPattern: value))
        }
        try push(value, size)
    }

    func executePop(_ i: Insn) throws(Fault) -> Flow {
        let size = i.operandSize
        var sp = self[4]
        let value = try popValue(&sp, size)
        if i.kind(0) == Insn.Kind.register, i.register(0) &>> 4 == 5 {
            let number = Int(i.register(0) & 7)
            try loadSegment(number, UInt16(truncatingIfNeeded: value))
            self[4] = sp
            if number == SegmentIndex.ss { s.shadow = 2 }
            return .end
        }
        if i.kind(0) == Insn.Kind.register {
            self[4] = sp
            writeRegister(i.register(0), value)
        } else {
            // The address is computed with rSP already moved; a fault leaves it as it was. Source: [SDM2 POP].
            let before = self[4]
            self[4] = sp
            do throws(Fault) {
                try write(i, 0, value)
            } catch {
                self[4] = before
                throw error
            }
        }
        return .next
    }

    func executePushAll(_ size: Int) throws(Fault) {
        let before = self[4]
        var sp = before
        // All eight must fit before the first is written.
        try probePush(sp, 8, size)
        for register in 0..<8 { try pushValue(&sp, register == 4 ? before : self[register], size, user: isUser) }
        self[4] = sp
    }

    private func probePush(_ sp: UInt64, _ count: Int, _ size: Int) throws(Fault) {
        var sp = sp
        for _ in 0..<count {
            sp = (sp &- UInt64(truncatingIfNeeded: size)) & s.stackMask
            try probeWrite(linear(SegmentIndex.ss, sp, size, write: true), size, user: isUser)
        }
    }

    func executePopAll(_ size: Int) throws(Fault) {
        var sp = self[4]
        var values: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0)
        values.0 = try popValue(&sp, size)
        values.1 = try popValue(&sp, size)
        values.2 = try popValue(&sp, size)
        _ = try popValue(&sp, size)
        values.3 = try popValue(&sp, size)
        values.4 = try popValue(&sp, size)
        values.5 = try popValue(&sp, size)
        values.6 = try popValue(&sp, size)
        self[4] = sp
        writeRegister(7, size: size, values.0)
        writeRegister(6, size: size, values.1)
        writeRegister(5, size: size, values.2)
        writeRegister(3, size: size, values.3)
        writeRegister(2, size: size, values.4)
        writeRegister(1, size: size, values.5)
        writeRegister(0, size: size, values.6)
    }

    func executePushFlags(_ size: Int) throws(Fault) {
        if isVirtual8086, s.flags & RFLAGS.iopl != RFLAGS.iopl { throw .protection }
        try push(rflags & ~(RFLAGS.vm | RFLAGS.rf), size)
    }

    func executePopFlags(_ size: Int) throws(Fault) -> Flow {
        if isVirtual8086, s.flags & RFLAGS.iopl != RFLAGS.iopl { throw .protection }
        var sp = self[4]
        let value = try popValue(&sp, size)
        self[4] = sp
        var changeable = RFLAGS.arithmetic | RFLAGS.tf | RFLAGS.df | RFLAGS.nt
        if size > 2 { changeable |= RFLAGS.ac | RFLAGS.id }
        if s.cpl == 0 { changeable |= RFLAGS.iopl }
        if UInt64(s.cpl) <= s.flags &>> 12 & 3 { changeable |= RFLAGS.if }
        let before = rflags
        var flags = before & ~changeable | value & changeable
        if size > 2 { flags &= ~RFLAGS.rf }
        rflags = flags
        if (before ^ flags) & (RFLAGS.tf | RFLAGS.ac) != 0 { refreshAccessMode() }
        return (before ^ flags) & (RFLAGS.if | RFLAGS.tf | RFLAGS.ac) != 0 ? .end : .next
    }

    func executeEnter(_ i: Insn) throws(Fault) {
        let size = i.operandSize
        let level = Int(i.f.secondImmediate & 31)
        var sp = self[4]
        try pushValue(&sp, self[5], size, user: isUser)
        let frame = sp
        if level > 0 {
            var bp = self[5]
            for _ in 1..<max(level, 1) {
                bp = bp &- UInt64(truncatingIfNeeded: size)
                let link = try load(linear(SegmentIndex.ss, bp & s.stackMask, size, write: false), size, user: isUser)
                try pushValue(&sp, link, size, user: isUser)
            }
            try pushValue(&sp, frame, size, user: isUser)
        }
        sp = sp & ~s.stackMask | (sp &- i.f.immediate) & s.stackMask
        // The new top must be writable. Source: [SDM2 ENTER].
        try probeWrite(linear(SegmentIndex.ss, sp & s.stackMask, size, write: true), size, user: isUser)
        writeRegister(5, size: size, frame)
        self[4] = sp
    }

    func executeLeave(_ size: Int) throws(Fault) {
        var sp = self[4] & ~s.stackMask | self[5] & s.stackMask
        let value = try popValue(&sp, size)
        self[4] = sp
        writeRegister(5, size: size, value)
    }
}
