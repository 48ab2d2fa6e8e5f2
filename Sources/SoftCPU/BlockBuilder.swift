internal import X86

/// Makes a block's operations, one instruction after another.
struct BlockBuilder {
    private(set) var at: UInt
    let rip: UInt64
    let mode: UInt32
    /// Instructions so far.
    private(set) var count = 0
    /// No instruction can follow.
    var isEnded = false
    /// The block is one instruction that is not kept: nothing is linked.
    var isSingle = false
    /// The last operation leads on by its own exits.
    private var hasExits = false

    init(at: UInt, rip: UInt64, mode: UInt32) {
        self.at = at
        self.rip = rip
        self.mode = mode
    }

    /// Where `offset` bytes into the block are.
    private func address(_ offset: Int) -> UInt64 {
        let mask: UInt64 = mode & Mode.bits64 != 0 ? ~0 : mode & Mode.bits32 != 0 ? 0xFFFF_FFFF : 0xFFFF
        return (rip &+ UInt64(truncatingIfNeeded: offset)) & mask
    }

    /// - Parameters:
    ///   - live: which flags are read before they are written again; `FlagSet`'s raw value.
    ///   - host: the address of its `HostOperation`, where it is one of the floating-point unit's.
    mutating func add(_ instruction: Instruction, offset: Int, live: UInt8, host: UInt) {
        let kind = instruction.mnemonic
        if kind == .nop || kind == .endbr64 || kind == .pause, !isSingle {
            // Only counted.
            count &+= 1
            return
        }
        // A hot branch may go on in another block, with no look at what the one instruction was run by itself for: a trap, a
        // breakpoint, an interrupt that waits for the end of a shadow.
        if let hot = HotSelection(instruction, rip: address(offset), mode: mode, live: live), !(isSingle && hot.isBranch) {
            addHot(hot, instruction, offset: offset)
        } else {
            if HostOperations.covers(instruction.row) {
                Host.store(Host.load(HostOperation.self, host), at &+ 32 &+ Insn.hostOffset)
            } else {
                Host.store(0 as UInt, at &+ 32 &+ Insn.hostOffset)
            }
            addGeneral(Insn.Fields(instruction), offset: offset)
            isEnded = Self.ends(instruction)
        }
    }

    private mutating func addHot(_ hot: HotSelection, _ instruction: Instruction, offset: Int) {
        var fields = hot.fields
        fields.number = UInt8(truncatingIfNeeded: count)
        fields.offset = UInt16(truncatingIfNeeded: offset)
        fields.row = instruction.row.rawValue
        let op = Op(at)
        op.set(hot.handler, fields)
        count &+= 1
        if hot.isBranch {
            let after = address(offset &+ Int(instruction.length))
            op.setExits(taken: hot.target, fallThrough: after)
            at &+= Op.branchSize
            isEnded = true
            hasExits = true
        } else {
            at &+= Op.size
        }
    }

    /// A comparison and the conditional branch behind it, as one operation.
    /// - Returns: false where there is no handler for the two.
    mutating func addFused(_ first: Instruction, _ second: Instruction, offset: Int) -> Bool {
        guard !isSingle, let target = second.branchTarget(at: address(offset &+ Int(first.length))),
            HotSelection.isPossible(target),
            var hot = HotSelection(comparison: first, branch: second, rip: address(offset), mode: mode)
        else { return false }
        hot.fields.number = UInt8(truncatingIfNeeded: count)
        hot.fields.offset = UInt16(truncatingIfNeeded: offset)
        hot.fields.row = first.row.rawValue
        hot.fields.fused = 1
        let op = Op(at)
        op.set(hot.handler, hot.fields)
        op.setExits(taken: target, fallThrough: address(offset &+ Int(first.length) &+ Int(second.length)))
        at &+= Op.branchSize
        count &+= 2
        isEnded = true
        hasExits = true
        return true
    }

    /// What never goes on with the next instruction of the same block.
    private static func ends(_ instruction: Instruction) -> Bool {
        if instruction.row.isBranch { return true }
        switch instruction.mnemonic {
        case .hlt, .wrmsr, .invlpg, .in, .out, .lmsw, .clts: return true
        case .mov: return instruction.kind(0) == .register && instruction.register(0).registerClass.rawValue >= 5
        default: return false
        }
    }

    mutating func addGeneral(_ fields: Insn.Fields, offset: Int) {
        let op = Op(at)
        var own = Op.Fields()
        own.number = UInt8(truncatingIfNeeded: count)
        own.offset = UInt16(truncatingIfNeeded: offset)
        op.set(Handlers.general, own)
        Host.store(fields, at &+ 32)
        at &+= Op.generalSize
        count &+= 1
    }

    /// Closes the block.
    /// - Parameter offset: of the byte after the last instruction.
    /// - Returns: the address after it.
    mutating func finish(offset: Int) -> UInt {
        if hasExits { return at }
        let op = Op(at)
        op.set(isSingle ? Handlers.stop : Handlers.fallThrough, Op.Fields())
        op.setExits(taken: address(offset), fallThrough: address(offset))
        at &+= Op.branchSize
        return at
    }
}
