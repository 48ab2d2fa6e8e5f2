/// Makes encodings of a row: the tables read backwards, for tests and their generators. Nothing a guest can reach.
///
/// What the tables leave open is drawn from a random source: prefixes, REX, registers, addressing form, displacement
/// and immediates. Every encoding that comes out is one the row must decode from.
package struct RowEncoder: Sendable {
    package let row: RowID
    package let mode: CodeMode
    /// Prefixes that change nothing may come too: 66 without an operand it sizes, F2 and F3 the row does not ask for,
    /// segment overrides without memory, each of them more than once.
    package var allowsRedundantPrefixes = false
    /// Prefix sets that match, with how often each is to be drawn.
    private let forms: [(form: Form, weight: Int)]

    /// The prefixes and prefix bits that select rows.
    struct Form: BitwiseCopyable {
        var operandSize = false
        var addressSize = false
        /// 0, F2 or F3.
        var rep: UInt8 = 0
        var w = false
        var l = false
    }

    /// - Returns: nil if the row cannot be encoded in `mode`.
    package init?(_ row: RowID, mode: CodeMode) {
        guard row.isValid(in: mode) else { return nil }
        self.row = row
        self.mode = mode
        let facts = row.row
        var forms: [(Form, Int)] = []
        for bits in 0..<16 {
            for rep: UInt8 in [0, 0xF2, 0xF3] {
                let form = Form(
                    operandSize: bits & 1 != 0, addressSize: bits & 2 != 0, rep: rep, w: bits & 4 != 0, l: bits & 8 != 0)
                if Self.matches(facts, row.map, mode, form) {
                    forms.append((form, Self.weight(facts, row, form)))
                }
            }
        }
        guard !forms.isEmpty else { return nil }
        self.forms = forms
    }

    private static func matches(_ row: Row, _ map: OpcodeMap, _ mode: CodeMode, _ form: Form) -> Bool {
        var context: UInt32 = 0
        if mode == .bits64 { context |= Match.Bit.mode64 }
        if form.operandSize { context |= Match.Bit.p66 }
        if form.rep == 0xF3 { context |= Match.Bit.f3 }
        if form.rep == 0xF2 { context |= Match.Bit.f2 }
        if form.w { context |= Match.Bit.w }
        if map.isVEX {
            // pp is one of 66, F3, F2.
            if form.operandSize, form.rep != 0 { return false }
            if form.l { context |= Match.Bit.l }
        } else {
            if form.l || form.w && mode != .bits64 { return false }
            let short = mode == .bits16 ? !form.operandSize : form.operandSize && !form.w
            if short { context |= Match.Bit.o16 }
        }
        if form.w, mode == .bits64 { context |= Match.Bit.y }
        switch mode {
        case .bits16 where !form.addressSize, .bits32 where form.addressSize: context |= Match.Bit.a16
        case .bits64 where !form.addressSize: context |= Match.Bit.a64
        default: break
        }
        // A vector index needs a SIB byte, which 16-bit addresses have not.
        if row.traits.contains(.vsib.vsibHalf), context & Match.Bit.a16 != 0 { return false }
        let decided = row.match.mask & ~(Match.modRMBits | Match.Bit.rexB)
        return (context ^ row.match.value) & decided == 0
    }

    /// How often a form is to come: seldom with prefixes that only lengthen it.
    private static func weight(_ row: Row, _ id: RowID, _ form: Form) -> Int {
        var weight = 64
        if form.addressSize { weight /= 8 }
        if form.rep != 0, row.match.mask & 0x300 == 0 { weight = id.isRepeatable ? weight : weight / 8 }
        if form.operandSize, row.match.mask & 0x880 == 0 {
            weight = row.hasOperandSizeDependence ? weight / 2 : weight / 8
        }
        return weight
    }

    // MARK: - One encoding

    package func encode(using random: inout some RandomNumberGenerator) -> Encoding {
        let row = self.row.row
        var form = pickForm(using: &random)
        var encoding = Encoding()
        let long = mode == .bits64
        let match = row.match
        if !allowsRedundantPrefixes {
            // A redundant form still may be the only one that matches.
            for _ in 0..<16 where isRedundant(form, row) { form = pickForm(using: &random) }
        }

        // Registers first: they decide REX.
        var rexR = false, rexX = false, rexB = false
        if long, Bool.random(using: &random) {
            rexR = Bool.random(using: &random)
            rexX = Bool.random(using: &random)
            rexB = Bool.random(using: &random)
        }
        if match.mask & Match.Bit.rexB != 0 { rexB = match.value & Match.Bit.rexB != 0 }

        let addressSize = addressSize(form)
        var mod: UInt8 = 0, reg: UInt8 = 0, rm: UInt8 = 0
        var hasMemory = false
        if row.usesModRM {
            reg = UInt8.random(in: 0..<8, using: &random)
            rm = UInt8.random(in: 0..<8, using: &random)
            if match.mask & 7 != 0 { reg = UInt8(match.value & 7) }
            if match.mask & 0x38 != 0 { rm = UInt8(match.value &>> 3 & 7) }
            mod = UInt8.random(in: 0..<4, using: &random)
            if match.mask & Match.Bit.register != 0 {
                mod = match.value & Match.Bit.register != 0 ? 3 : UInt8.random(in: 0..<3, using: &random)
            }
            if row.operand(from: .reg, in: .segment) {
                repeat { reg = UInt8.random(in: 0..<6, using: &random) } while row.operand0.file == .segment && reg == 1
            }
            if row.operand(from: .reg, in: .control) {
                reg = [0, 2, 3, 4].randomElement(using: &random) ?? 0
                rexR = long && reg == 0 && rexR
            }
            if row.operand(from: .reg, in: .debug) { rexR = false }
            hasMemory = mod != 3 && !row.traits.contains(.modIgnored)
            if row.traits.contains(.vsib.vsibHalf) { rm = 4 }
        }

        // LOCK, where it is allowed at all.
        let lock = hasMemory && row.traits.contains(.lock) && row.operand0.source == .rm && UInt8.random(in: 0..<4, using: &random) == 0

        var sib: UInt8?
        var displacement = 0
        if hasMemory {
            if addressSize == 2 {
                displacement = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0
            } else {
                displacement = mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0
                if rm == 4 {
                    let byte = UInt8.random(in: 0...255, using: &random)
                    sib = byte
                    displacement = mod == 1 ? 1 : mod == 2 || byte & 7 == 5 ? 4 : 0
                }
            }
        }

        // VEX.vvvv, and the registers of a gather, which must differ.
        var vvvv: UInt8 = 0
        if self.row.map.isVEX {
            if row.operand(from: .vvvv, in: nil) {
                vvvv = UInt8.random(in: 0..<(long ? 16 : 8), using: &random)
            }
            if row.traits.contains(.vsib.vsibHalf), let byte = sib {
                let destination = reg | (rexR ? 8 : 0)
                let index = (destination &+ 1) & 7
                sib = byte & 0xC7 | index &<< 3
                rexX = false
                while vvvv == destination || vvvv == index { vvvv = (vvvv &+ 1) & 7 }
            }
        }

        // Prefixes in any order.
        var prefixes: [UInt8] = []
        let isVEX = self.row.map.isVEX
        if form.operandSize, !isVEX { prefixes.append(0x66) }
        if form.addressSize { prefixes.append(0x67) }
        if form.rep != 0, !isVEX { prefixes.append(form.rep) }
        if lock { prefixes.append(0xF0) }
        let usesSegment = hasMemory || row.operand(from: .moffs, in: nil) || row.operand(from: .stringSource, in: nil)
            || row.operand(from: .translate, in: nil)
        if UInt8.random(in: 0..<8, using: &random) == 0, usesSegment || allowsRedundantPrefixes {
            prefixes.append([0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65].randomElement(using: &random) ?? 0x3E)
        }
        if allowsRedundantPrefixes, !isVEX, let again = prefixes.randomElement(using: &random), UInt8.random(in: 0..<4, using: &random) == 0 {
            prefixes.append(again)
        }
        prefixes.shuffle(using: &random)
        encoding.prefixes = prefixes
        encoding.bytes = prefixes

        var opcode = row.opcode
        if row.traits.contains(.plusR) {
            encoding.opcodeRegister = UInt8.random(in: 0..<8, using: &random)
            // 90 is a row of its own.
            if self.row.map == .primary, row.opcode == 0x91 { encoding.opcodeRegister = UInt8.random(in: 1..<8, using: &random) }
            opcode = row.opcode & 0xF8 | encoding.opcodeRegister
        }

        if isVEX {
            appendVEX(form, rexR, rexX, rexB, vvvv, opcode, &encoding, using: &random)
        } else {
            var rex: UInt8 = form.w ? 8 : 0
            if rexR { rex |= 4 }
            if rexX { rex |= 2 }
            if rexB { rex |= 1 }
            if rex != 0 || long && UInt8.random(in: 0..<8, using: &random) == 0 {
                encoding.rex = 0x40 | rex
                encoding.bytes.append(0x40 | rex)
            }
            switch self.row.map {
            case .map0F: encoding.bytes += [0x0F]
            case .map0F38: encoding.bytes += [0x0F, 0x38]
            case .map0F3A: encoding.bytes += [0x0F, 0x3A]
            default: break
            }
            encoding.bytes.append(opcode)
        }
        encoding.rexR = rexR
        encoding.rexX = rexX
        encoding.rexB = rexB
        encoding.vvvv = vvvv
        encoding.hasLock = lock
        encoding.hasMemory = hasMemory
        encoding.addressSize = addressSize
        encoding.operandSize = operandSize(form, row)
        encoding.isWide = form.w && long
        encoding.isLong256 = form.l && isVEX

        if row.usesModRM {
            encoding.modRM = mod &<< 6 | reg &<< 3 | rm
            encoding.bytes.append(mod &<< 6 | reg &<< 3 | rm)
        }
        if let sib {
            encoding.sib = sib
            encoding.bytes.append(sib)
        }
        encoding.displacementOffset = encoding.bytes.count
        encoding.displacementSize = displacement
        appendRandom(displacement, to: &encoding.bytes, using: &random)
        for operand in [row.operand0, row.operand1, row.operand2, row.operand3] {
            let size = immediateSize(operand, encoding)
            guard size > 0 else { continue }
            if operand.source == .moffs {
                encoding.displacementOffset = encoding.bytes.count
                encoding.displacementSize = size
            } else {
                encoding.immediates.append((encoding.bytes.count, size))
            }
            appendRandom(size, to: &encoding.bytes, using: &random)
        }
        return encoding
    }

    private func isRedundant(_ form: Form, _ row: Row) -> Bool {
        if form.rep != 0, row.match.mask & 0x300 == 0, !self.row.isRepeatable { return true }
        return form.operandSize && row.match.mask & 0x880 == 0 && !row.hasOperandSizeDependence
    }

    private func pickForm(using random: inout some RandomNumberGenerator) -> Form {
        let total = forms.reduce(0) { $0 + max(1, $1.weight) }
        var ticket = Int.random(in: 0..<total, using: &random)
        for (form, weight) in forms {
            ticket -= max(1, weight)
            if ticket < 0 { return form }
        }
        return forms[0].form
    }

    private func addressSize(_ form: Form) -> Int {
        switch mode {
        case .bits16: form.addressSize ? 4 : 2
        case .bits32: form.addressSize ? 2 : 4
        case .bits64: form.addressSize ? 4 : 8
        }
    }

    private func operandSize(_ form: Form, _ row: Row) -> Int {
        if form.w, mode == .bits64 { return 8 }
        let short = !self.row.map.isVEX && (mode == .bits16 ? !form.operandSize : form.operandSize)
        if mode == .bits64 {
            if row.traits.contains(.f64) { return 8 }
            if row.traits.contains(.d64) { return short ? 2 : 8 }
        }
        return short ? 2 : 4
    }

    private func immediateSize(_ operand: OperandSpec, _ encoding: Encoding) -> Int {
        switch operand.source {
        case .is4: return 1
        case .moffs: return encoding.addressSize
        case .far: return (encoding.operandSize == 2 ? 2 : 4) + 2
        case .immediate, .relative:
            switch operand.size {
            case .b, .bs: return 1
            case .w: return 2
            case .v: return encoding.operandSize
            default: return encoding.operandSize == 2 ? 2 : 4
            }
        default: return 0
        }
    }

    private func appendRandom(_ count: Int, to bytes: inout [UInt8], using random: inout some RandomNumberGenerator) {
        for _ in 0..<count { bytes.append(UInt8.random(in: 0...255, using: &random)) }
    }

    private func appendVEX(
        _ form: Form, _ rexR: Bool, _ rexX: Bool, _ rexB: Bool, _ vvvv: UInt8, _ opcode: UInt8,
        _ encoding: inout Encoding, using random: inout some RandomNumberGenerator
    ) {
        let pp: UInt8 = form.operandSize ? 1 : form.rep == 0xF3 ? 2 : form.rep == 0xF2 ? 3 : 0
        let low = (~vvvv & 15) &<< 3 | (form.l ? 4 : 0) | pp
        let notR: UInt8 = rexR ? 0 : 0x80
        if row.map == .vex0F, !form.w, !rexX, !rexB, Bool.random(using: &random) {
            encoding.bytes += [0xC5, notR | low, opcode]
            return
        }
        let map: UInt8 = row.map == .vex0F ? 1 : row.map == .vex0F38 ? 2 : 3
        encoding.bytes += [
            0xC4, notR | (rexX ? 0 : 0x40) | (rexB ? 0 : 0x20) | map, low | (form.w ? 0x80 : 0), opcode,
        ]
    }

    /// One encoding, and what it was made of.
    package struct Encoding: Sendable {
        package var bytes: [UInt8] = []
        /// Legacy prefixes, in their order.
        package var prefixes: [UInt8] = []
        /// 0 for none.
        package var rex: UInt8 = 0
        package var modRM: UInt8?
        package var sib: UInt8?
        package var rexR = false, rexX = false, rexB = false
        package var vvvv: UInt8 = 0
        package var opcodeRegister: UInt8 = 0
        package var hasLock = false
        package var hasMemory = false
        package var addressSize = 0
        package var operandSize = 0
        /// REX.W or VEX.W, in 64-bit mode.
        package var isWide = false
        package var isLong256 = false
        package var displacementOffset = 0
        package var displacementSize = 0
        package var immediates: [(offset: Int, size: Int)] = []

        package init() {}
    }
}

extension Row {
    /// Whether 66 changes the size of an operand.
    var hasOperandSizeDependence: Bool {
        for operand in [operand0, operand1, operand2, operand3] where operand.source != .none {
            switch operand.size {
            case .v, .z, .p, .a, .bs, .env, .state, .vw: return true
            default: break
            }
        }
        return false
    }

    func operand(from source: OperandSpec.Source, in file: OperandSpec.File?) -> Bool {
        for operand in [operand0, operand1, operand2, operand3]
        where operand.source == source && (file == nil || operand.file == file) {
            return true
        }
        return false
    }
}
