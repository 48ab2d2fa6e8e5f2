internal import X86

/// Reading and writing the operands of the general path.
extension CPU {
    // MARK: Registers

    /// Reads a general register of any class, zero-extended.
    @inline(__always) func readRegister(_ raw: UInt8) -> UInt64 {
        let number = Int(raw & 15)
        switch raw &>> 4 {
        case 0: return self[number] & 0xFF
        case 1: return self[number] &>> 8 & 0xFF
        case 2: return self[number] & 0xFFFF
        case 3: return self[number] & 0xFFFF_FFFF
        case 4: return self[number]
        case 5: return UInt64(segment(number & 7).selector)
        default: return 0
        }
    }

    @inline(__always) func writeRegister(_ raw: UInt8, _ value: UInt64) {
        let number = Int(raw & 15)
        switch raw &>> 4 {
        case 0: self[number] = self[number] & ~0xFF | value & 0xFF
        case 1: self[number] = self[number] & ~0xFF00 | (value & 0xFF) &<< 8
        case 2: self[number] = self[number] & ~0xFFFF | value & 0xFFFF
        case 3: self[number] = value & 0xFFFF_FFFF
        default: self[number] = value
        }
    }

    /// Writes `size` bytes of register `number` as an instruction of that operand size does.
    @inline(__always) func writeRegister(_ number: Int, size: Int, _ value: UInt64) {
        switch size {
        case 1: self[number] = self[number] & ~0xFF | value & 0xFF
        case 2: self[number] = self[number] & ~0xFFFF | value & 0xFFFF
        case 4: self[number] = value & 0xFFFF_FFFF
        default: self[number] = value
        }
    }

    /// A mask of `size` bytes.
    @inline(__always) func mask(_ size: Int) -> UInt64 { ~0 &>> UInt64(truncatingIfNeeded: 64 &- size &* 8) }

    // MARK: Memory operands

    /// The offset of the memory operand, cut to the address size.
    @inline(__always) func offset(_ i: Insn) -> UInt64 {
        let base: UInt64 =
            switch i.f.base {
            case 17: s.nextRIP
            default: self[Int(i.f.base)]
            }
        let index = i.f.index == 18 ? self[0] & 0xFF : self[Int(i.f.index)]
        let sum = base &+ index &<< UInt64(i.f.scale) &+ UInt64(bitPattern: i.f.displacement)
        switch i.f.addressSize {
        case 8: return sum
        case 4: return sum & 0xFFFF_FFFF
        default: return sum & 0xFFFF
        }
    }

    /// The memory operand's linear address, checked.
    @inline(__always) func linear(_ i: Insn, _ size: Int, write: Bool) throws(Fault) -> UInt64 {
        try linear(Int(i.f.segment), offset(i), size, write: write)
    }

    // MARK: Operands

    @inline(__always) func read(_ i: Insn, _ n: Int) throws(Fault) -> UInt64 {
        switch i.kind(n) {
        case Insn.Kind.register: return readRegister(i.register(n))
        case Insn.Kind.memory:
            let size = i.size(n)
            return try load(linear(i, size, write: false), size, user: isUser)
        case Insn.Kind.secondImmediate: return UInt64(i.f.secondImmediate)
        default: return i.f.immediate
        }
    }

    @inline(__always) func write(_ i: Insn, _ n: Int, _ value: UInt64) throws(Fault) {
        if i.kind(n) == Insn.Kind.register {
            writeRegister(i.register(n), value)
        } else {
            let size = i.size(n)
            try store(linear(i, size, write: true), size, value, user: isUser)
        }
    }

    /// Reads operand 0, computes, writes it back: bus-locked where the instruction says so.
    ///
    /// - Parameter compute: called with what was read; in a locked instruction perhaps more than once.
    /// - Returns: what was read for the write that took place.
    @inline(__always)
    func modify(_ i: Insn, locked: Bool, _ compute: (UInt64) -> UInt64) throws(Fault) -> UInt64 {
        let size = i.size(0)
        if i.kind(0) == Insn.Kind.register {
            let old = readRegister(i.register(0))
            writeRegister(i.register(0), compute(old))
            return old
        }
        let at = try linear(i, size, write: true)
        if locked { return try modifyLocked(at, size, compute) }
        try probeWrite(at, size, user: isUser)
        let old = try load(at, size, user: isUser)
        try store(at, size, compute(old), user: isUser)
        return old
    }

    /// Source: [SDM3 §9.1.2]: an atomic read-modify-write of guest memory is one of the host's.
    @inline(never)
    func modifyLocked(_ at: UInt64, _ size: Int, _ compute: (UInt64) -> UInt64) throws(Fault) -> UInt64 {
        let (host, physical) = try hostForWrite(at, size, user: isUser)
        guard host != 0 else {
            // A device, or two pages that do not adjoin: no processor guarantees more to memory-mapped registers.
            let old = try load(at, size, user: isUser)
            try store(at, size, compute(old), user: isUser)
            return old
        }
        var old = readHost(host, size)
        while true {
            let seen = compareExchange(host, size, old, compute(old))
            if seen == old { break }
            old = seen
        }
        storedPhysical(physical, size)
        return old
    }

    func readHost(_ host: UInt, _ size: Int) -> UInt64 {
        switch size {
        case 1: UInt64(Host.load(UInt8.self, host))
        case 2: UInt64(Host.load(UInt16.self, host))
        case 4: UInt64(Host.load(UInt32.self, host))
        default: Host.load(UInt64.self, host)
        }
    }
}
