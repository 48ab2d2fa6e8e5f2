internal import CHost
internal import X86

/// From bytes to blocks.
extension CPU {
    /// The block at `rip`, decoded where there is none yet.
    ///
    /// - Returns: 0 where the instruction is not to be kept: it lies across two pages, or is not in RAM.
    /// - Throws: what fetching it raises.
    func findBlock() throws(Fault) -> UInt {
        let rip = s.rip
        let linear: UInt64
        if is64 {
            linear = rip
        } else {
            linear = (segmentBase(SegmentIndex.cs) &+ rip) & 0xFFFF_FFFF
        }
        let slot = jumpSlot(linear)
        let known = Host.load(UInt.self, slot)
        if known != 0 {
            let block = Block(known)
            if block.h.linear == linear, block.h.rip == rip, block.h.mode == s.mode, block.h.generation == s.generation {
                return known
            }
        }
        try checkFetch(rip, linear)
        let physical = try translateFetch(linear)
        guard let page = ramPage(physical), physical & TLB.pageMask != s.apicPage else { return 0 }
        var at = Host.load(UInt.self, bucket(physical, linear))
        while at != 0 {
            let block = Block(at)
            if block.h.physical == physical, block.h.linear == linear, block.h.rip == rip, block.h.mode == s.mode {
                if block.h.second != ~0 {
                    // Faults of its second page are the instruction's.
                    let next = (linear | 0xFFF) &+ 1
                    guard try translateFetch(next) == block.h.second else {
                        at = block.h.next
                        continue
                    }
                    noteCode(next)
                }
                block.h.generation = s.generation
                noteCode(linear)
                Host.store(at, slot)
                return at
            }
            at = block.h.next
        }
        var made = makeBlock(rip, linear, physical, page)
        if made == 0, is64 { made = try makeCrossing(rip, linear, physical, page) }
        if made != 0 { Host.store(made, jumpSlot(linear)) }
        return made
    }

    private func checkFetch(_ rip: UInt64, _ linear: UInt64) throws(Fault) {
        if is64 {
            guard isCanonical(rip) else { throw .protection }
        } else if rip > UInt64(cs.limit) {
            throw .protection
        }
    }

    func translateFetch(_ linear: UInt64) throws(Fault) -> UInt64 {
        let table = address &+ (s.cpl == 3 ? Layout.userTLB : Layout.tlb)
        let entry = table &+ TLB.offset(linear)
        if Host.load(UInt64.self, entry &+ 16) == linear & TLB.pageMask {
            return physical(ofRAM: UInt(truncatingIfNeeded: linear &+ Host.load(UInt64.self, entry &+ 24)))
        }
        return try translate(linear, PageAccess(isFetch: true, isUser: s.cpl == 3))
    }

    /// The physical address of a byte of RAM at a host address that a TLB entry led to.
    @inline(__always) func physical(ofRAM host: UInt) -> UInt64 {
        let low = host &- s.lowRAM
        if UInt64(low) < s.lowSize { return UInt64(low) }
        return 0x1_0000_0000 &+ UInt64(host &- s.highRAM)
    }

    var codeMode: CodeMode {
        s.mode & Mode.bits64 != 0 ? .bits64 : s.mode & Mode.bits32 != 0 ? .bits32 : .bits16
    }

    /// Decodes from bytes of the host's. `nil` where they go on past `count`.
    private func decode(_ host: UInt, _ count: Int) -> Decoded? {
        // A copy: other processors may write to it while it is looked at.
        let copy = address &+ Layout.scratchBytes
        let taken = min(count, 15)
        for byte in 0..<UInt(bitPattern: taken) { Host.store(Host.load(UInt8.self, host &+ byte), copy &+ byte) }
        do throws(DecodeError) {
            let pointer = unsafe UnsafePointer<UInt8>(bitPattern: copy).unsafelyUnwrapped
            let instruction = try unsafe Decoder.decode(pointer, count: taken, mode: codeMode)
            if s.rescuing != 0 {
                guard acceptForRescue(instruction) else { return .undefined }
            } else if !CPU.has(instruction.row.feature) || instruction.row.isAlwaysUndefined {
                return .undefined
            }
            if instruction.row.map.isVEX, instruction.row.unit != .integer || isReal { return .undefined }
            if HostOperations.covers(instruction.row) {
                guard let operation = unsafe vcpu.engine.hostOperations.prepare(instruction, bytes: pointer) else { return .undefined }
                Host.store(operation, address &+ Layout.scratchHost)
            }
            return .instruction(instruction)
        } catch {
            switch error {
            case .truncated: return nil
            case .undefined:
                if s.rescuing != 0 { refuseUnknown(copy, taken) }
                return .undefined
            case .tooLong: return .tooLong
            }
        }
    }

    private enum Decoded {
        case instruction(Instruction)
        case undefined
        case tooLong

        var fields: Insn.Fields {
            switch self {
            case .instruction(let instruction): return Insn.Fields(instruction)
            case .undefined, .tooLong:
                var fields = Insn.Fields()
                fields.mnemonic = .ud2
                if case .tooLong = self { fields.immediate = 1 }
                return fields
            }
        }
    }

    private func makeBlock(_ rip: UInt64, _ linear: UInt64, _ physical: UInt64, _ page: UInt64) -> UInt {
        let most = Block.headerSize &+ UInt(Block.longest) &* Op.generalSize &+ Op.branchSize &* 2
        let block = Block(reserveBlock(most))
        let host = ram(physical)
        let available = bytesInPage(physical)
        var builder = BlockBuilder(at: block.firstOp, rip: rip, mode: s.mode)
        // First all are decoded, so that it is known which flags somebody reads.
        var used = 0
        var count = 0
        var last: Decoded?
        var marked: UInt32 = 0
        while count < Block.longest {
            let at = physical & 0xFFF &+ UInt64(truncatingIfNeeded: used)
            markCode(page: page, first: at, last: min(at &+ 14, 0xFFF), &marked)
            guard let decoded = decode(host &+ UInt(bitPattern: used), available &- used) else { break }
            guard case .instruction(let instruction) = decoded else {
                last = decoded
                break
            }
            let end = rip &+ UInt64(truncatingIfNeeded: used &+ Int(instruction.length) &- 1)
            // What does not lie within the segment is #GP when its turn comes.
            if !is64, end > UInt64(cs.limit) { break }
            Host.store(instruction, decodedSlot(count))
            Host.store(Host.load(HostOperation.self, address &+ Layout.scratchHost), decodedSlot(count) &+ 64)
            count &+= 1
            used &+= Int(instruction.length)
            if instruction.row.isBranch || used >= available { break }
        }
        markLiveFlags(count)
        var offset = 0
        var index = 0
        while index < count {
            let instruction = Host.load(Instruction.self, decodedSlot(index))
            if index &+ 1 == count &- 1, last == nil {
                let next = Host.load(Instruction.self, decodedSlot(index &+ 1))
                if builder.addFused(instruction, next, offset: offset) {
                    offset &+= Int(instruction.length) &+ Int(next.length)
                    break
                }
            }
            builder.add(instruction, offset: offset, live: Host.load(UInt8.self, liveSlot(index)), host: decodedSlot(index) &+ 64)
            offset &+= Int(instruction.length)
            index &+= 1
            if builder.isEnded { break }
        }
        used = offset
        if let last, !builder.isEnded {
            builder.addGeneral(last.fields, offset: offset)
            builder.isEnded = true
        }
        guard builder.count > 0 else { return 0 }
        let end = builder.finish(offset: used)
        block.h = Block.Header(
            rip: rip, linear: linear, physical: physical, generation: s.generation, mode: s.mode,
            count: UInt32(truncatingIfNeeded: builder.count))
        s.arenaNext = (end &+ 63) & ~63
        noteCode(linear)
        register(block, page: page)
        return block.address
    }

    /// A block of the one instruction that lies across the end of its page. It is in both pages' lists of blocks.
    /// - Returns: 0 where it is not to be kept.
    private func makeCrossing(_ rip: UInt64, _ linear: UInt64, _ physical: UInt64, _ page: UInt64) throws(Fault) -> UInt {
        let first = bytesInPage(linear)
        guard first < 15 else { return 0 }
        let nextLinear = (linear | 0xFFF) &+ 1
        guard isCanonical(nextLinear) else { return 0 }
        let second = try translateFetch(nextLinear)
        guard let secondPage = ramPage(second), second & TLB.pageMask != s.apicPage else { return 0 }
        // Dropping all blocks for want of room comes before anything is marked or entered: both pieces fit then.
        let block = Block(reserveBlock(Block.headerSize &* 3 &+ Op.generalSize &+ Op.branchSize &* 2))
        var marked: (UInt32, UInt32) = (0, 0)
        markCode(page: page, first: physical & 0xFFF, last: 0xFFF, &marked.0)
        markCode(page: secondPage, first: 0, last: 14, &marked.1)
        let buffer = address &+ Layout.scratchFetch
        fetch(physical, first, buffer)
        fetch(second, 15 &- first, buffer &+ UInt(bitPattern: first))
        guard case .instruction(let instruction)? = decode(buffer, 15) else { return 0 }
        let length = Int(instruction.length)
        guard length > first else { return 0 }
        var builder = BlockBuilder(at: block.firstOp, rip: rip, mode: s.mode)
        builder.add(instruction, offset: 0, live: 0x3F, host: address &+ Layout.scratchHost)
        let end = builder.finish(offset: length)
        block.h = Block.Header(
            rip: rip, linear: linear, physical: physical, generation: s.generation, mode: s.mode, count: 1, second: second)
        let stub = Block((end &+ 63) & ~63)
        stub.h = Block.Header(physical: Block.stub, second: UInt64(block.address))
        s.arenaNext = stub.address &+ Block.headerSize
        noteCode(linear)
        noteCode(nextLinear)
        register(block, page: page)
        list(stub, page: secondPage)
        return block.address
    }

    private func decodedSlot(_ index: Int) -> UInt { address &+ Layout.decoded &+ UInt(bitPattern: index) &* 96 }
    private func liveSlot(_ index: Int) -> UInt { address &+ Layout.live &+ UInt(bitPattern: index) }

    /// For each decoded instruction, the flags that something reads before they are written again: those it must make.
    /// At the block's end all may be read; and by whoever handles a fault, who sees them in RFLAGS on the stack.
    private func markLiveFlags(_ count: Int) {
        var live: UInt8 = 0x3F
        var index = count
        while index > 0 {
            index &-= 1
            Host.store(live, liveSlot(index))
            let instruction = Host.load(Instruction.self, decodedSlot(index))
            let row = instruction.row
            if row.isBranch { continue }
            guard Self.isHidden(instruction) else {
                live = 0x3F
                continue
            }
            // Counts of zero change nothing: only what is written whatever the operands are ends a flag's life.
            var written = row.flagsWritten.rawValue
            switch instruction.mnemonic {
            case .shl, .shr, .sar, .rol, .ror, .rcl, .rcr, .shld, .shrd: written = 0
            default: break
            }
            live = live & ~written | row.flagsRead.rawValue & 0x3F
        }
    }

    /// Whether nobody sees RFLAGS between it and the next: it has a handler of its own, behind which no interrupt is looked
    /// for, and works on registers alone, so that it never faults.
    private static func isHidden(_ i: Instruction) -> Bool {
        guard i.row.unit == .integer, !i.hasMemory || i.mnemonic == .lea, i.size(0) != 2 else { return false }
        func isGeneral(_ operand: Int) -> Bool {
            i.kind(operand) != .register || i.register(operand).registerClass.rawValue <= 4 && i.register(operand).registerClass != .high8
        }
        guard isGeneral(0), isGeneral(1) else { return false }
        switch i.mnemonic {
        case .nop, .endbr64, .pause, .cqo, .cdq, .cdqe, .add, .or, .adc, .sbb, .and, .sub, .xor, .cmp, .test, .mov, .movzx, .movsx, .movsxd,
            .inc, .dec, .neg, .not, .shl, .shr, .sar, .rol, .bswap, .cmova, .cmovae, .cmovb, .cmovbe, .cmove, .cmovg, .cmovge, .cmovl,
            .cmovle, .cmovne, .cmovno, .cmovnp, .cmovns, .cmovo, .cmovp, .cmovs, .seta, .setae, .setb, .setbe, .sete, .setg, .setge,
            .setl, .setle, .setne, .setno, .setnp, .setns, .seto, .setp, .sets:
            return true
        case .lea: return i.mode == .bits64 && i.addressSize == 8
        case .imul: return i.operandCount >= 2
        case .xchg: return i.size(0) == 8
        default: return false
        }
    }

    /// Decodes one instruction into memory that is used again at once: single steps, instructions across two pages, and
    /// ones that are not in RAM.
    func makeSingle() throws(Fault) -> UInt {
        let rip = s.rip
        let linear = is64 ? rip : (segmentBase(SegmentIndex.cs) &+ rip) & 0xFFFF_FFFF
        try checkFetch(rip, linear)
        let buffer = address &+ Layout.scratchFetch
        let block = Block(address &+ Layout.scratchBlock)
        var have = 0
        // First what lies in the page, then, only where it does not suffice, the next page.
        let physical = try translateFetch(linear)
        let first = min(bytesInPage(linear), 15)
        fetch(physical, first, buffer)
        have = first
        var decoded = decode(buffer, have)
        if decoded == nil, have < 15 {
            let nextLinear = is64 ? linear &+ UInt64(truncatingIfNeeded: have) : (linear &+ UInt64(truncatingIfNeeded: have)) & 0xFFFF_FFFF
            if !is64, rip &+ UInt64(truncatingIfNeeded: have) > UInt64(cs.limit) { throw .protection }
            let next = try translateFetch(nextLinear)
            fetch(next, 15 &- have, buffer &+ UInt(bitPattern: have))
            have = 15
            decoded = decode(buffer, have)
        }
        var builder = BlockBuilder(at: block.firstOp, rip: rip, mode: s.mode)
        builder.isSingle = true
        var used = 0
        if let decoded {
            if case .instruction(let instruction) = decoded {
                builder.add(instruction, offset: 0, live: 0x3F, host: address &+ Layout.scratchHost)
                used = Int(instruction.length)
                // The whole instruction lies within the segment.
                if !is64, rip &+ UInt64(truncatingIfNeeded: used &- 1) > UInt64(cs.limit) { throw .protection }
            } else {
                builder.addGeneral(decoded.fields, offset: 0)
                builder.isEnded = true
            }
        } else {
            throw .protection
        }
        _ = builder.finish(offset: used)
        block.h = Block.Header(
            rip: rip, linear: linear, physical: ~0, generation: 0, mode: s.mode,
            count: UInt32(truncatingIfNeeded: builder.count))
        return block.address
    }

    private func fetch(_ physical: UInt64, _ count: Int, _ target: UInt) {
        for byte in 0..<UInt64(truncatingIfNeeded: count) {
            Host.store(UInt8(truncatingIfNeeded: readPhysical(physical &+ byte, 1)), target &+ UInt(byte))
        }
    }

    /// Decodes the instruction of an operation once more, for the general path.
    /// - Returns: false where there is another one now.
    func decodeAgain(_ block: Block, _ op: Op, into insn: Insn) -> Bool {
        let decoded: Decoded?
        if block.h.physical == ~0 {
            decoded = decode(address &+ Layout.scratchFetch, 15)
        } else if block.h.second != ~0 {
            let buffer = address &+ Layout.scratchFetch
            let first = bytesInPage(block.h.physical)
            fetch(block.h.physical, first, buffer)
            fetch(block.h.second, 15 &- first, buffer &+ UInt(bitPattern: first))
            decoded = decode(buffer, 15)
        } else {
            let at = block.h.physical &+ UInt64(op.offset)
            decoded = decode(ram(at), bytesInPage(at))
        }
        guard let decoded, case .instruction(let instruction) = decoded, instruction.row.rawValue == op.row else { return false }
        Host.store(Insn.Fields(instruction), insn.address)
        if HostOperations.covers(instruction.row) {
            Host.store(Host.load(HostOperation.self, address &+ Layout.scratchHost), insn.address &+ Insn.hostOffset)
        }
        return true
    }
}
