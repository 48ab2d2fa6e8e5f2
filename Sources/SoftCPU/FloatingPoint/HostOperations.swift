internal import Synchronization
internal import X86

/// Makes `HostOperation`s, and keeps the thunks that they call.
///
/// One for the process: thunks know nothing of a vCPU or machine. `prepare` may be called from any thread.
final class HostOperations: Sendable {
    /// Enough for every form there is, which a test proves; a page of it costs memory only when a thunk is put there.
    static let capacity = 4 << 20

    private struct Thunks: ~Copyable {
        var area: ThunkArea
        /// By `ThunkForm.key`.
        var addresses: [UInt64: UInt] = [:]
    }

    private let thunks: Mutex<Thunks>
    private let features = HostFeatures()

    private init() throws(HostOperationsError) {
        thunks = Mutex(Thunks(area: try ThunkArea(byteCount: HostOperations.capacity)))
    }

    private static let instance = Result { () throws(HostOperationsError) in try HostOperations() }

    /// The process's instance, made when first asked for.
    ///
    /// - Throws: `HostOperationsError` where the host forbids executable memory.
    static func open() throws(HostOperationsError) -> HostOperations { try instance.get() }

    /// How many bytes thunks take, and how many there are.
    var usage: (bytes: Int, thunks: Int) { thunks.withLock { ($0.area.used, $0.addresses.count) } }

    // MARK: Preparing

    /// Whether a row is executed here: x87, MMX, SSE to SSE4.2, SSE4A, AES, PCLMULQDQ, SHA, GFNI, CRC32, and the
    /// instructions that save and restore their state. Prefetches, fences, MOVNTI and VEX encodings are not.
    static func covers(_ row: RowID) -> Bool {
        if row.map.isVEX { return false }
        switch row.mnemonic {
        case .crc32, .fxsave, .fxsave64, .fxrstor, .fxrstor64, .ldmxcsr, .stmxcsr: return true
        default: return row.unit != .integer
        }
    }

    /// Prepares a decoded instruction.
    ///
    /// - Parameters:
    ///   - instruction: what the decoder made of `bytes`.
    ///   - bytes: the instruction's `length` bytes.
    /// - Returns: nil where the row is not covered or the host's processor lacks the feature: #UD.
    func prepare(_ instruction: Instruction, bytes: UnsafePointer<UInt8>) -> HostOperation? {
        let row = instruction.row
        guard HostOperations.covers(row), features.has(row.feature) else { return nil }
        if let control = X87Control.prepare(instruction) { return control }

        let form = ThunkForm(instruction)
        guard let entry = address(of: form) else { return nil }
        var operation = HostOperation(entry: entry)
        operation.setMemory(instruction)
        if form.writesFlags { operation.traits.insert(.writesFlags) }
        if form.readsFlags { operation.traits.insert(.readsFlags) }
        if row.unit == .x87 {
            operation.unit = .x87
            operation.opcode = unsafe HostOperations.lastOpcode(bytes, count: Int(instruction.length))
            if form.hasMemory {
                operation.destination.base = .memory
                operation.source.base = .memory
            }
            return operation
        }
        operation.destination = HostOperations.operand(instruction, 0)
        operation.source = HostOperations.operand(instruction, 1)
        if form.usesMMX { operation.unit = .mmx }
        if form.operandClass(0) == .mmx, form.writesDestination { operation.traits.insert(.destinationIsMMX) }
        return operation
    }

    private func address(of form: ThunkForm) -> UInt? {
        let key = form.key
        return thunks.withLock { thunks in
            if let address = thunks.addresses[key] { return address }
            let code = ThunkEmitter.thunk(form)
            guard let address = thunks.area.add(code) else { return nil }
            thunks.addresses[key] = address
            return address
        }
    }

    /// Where an operand is: a register's place in the image or among the general registers, or memory.
    private static func operand(_ instruction: Instruction, _ position: Int) -> HostOperation.Operand {
        guard instruction.kind(position) == .register else {
            return HostOperation.Operand(base: instruction.kind(position) == .memory ? .memory : .image)
        }
        let register = instruction.register(position)
        let number = UInt16(register.number)
        switch register.registerClass {
        case .xmm: return HostOperation.Operand(offset: UInt16(FXSaveImage.xmm) + number &* 16)
        case .mmx: return HostOperation.Operand(offset: UInt16(FXSaveImage.st) + number &* 16)
        case .high8: return HostOperation.Operand(offset: number &* 8 + 1, base: .general)
        default: return HostOperation.Operand(offset: number &* 8, base: .general)
        }
    }

    /// FOP of an x87 instruction: the low three bits of its first byte after the prefixes, and the byte after that.
    ///
    /// Source: [SDM1 §8.1.9].
    private static func lastOpcode(_ bytes: UnsafePointer<UInt8>, count: Int) -> UInt16 {
        // No prefix is D8 to DF.
        for index in 0..<max(count - 1, 0) where unsafe bytes[index] & 0xF8 == 0xD8 {
            return unsafe UInt16(bytes[index] & 7) &<< 8 | UInt16(bytes[index + 1])
        }
        return 0
    }
}

extension HostOperation {
    /// The memory operand's size, direction and alignment, as the row has them.
    mutating func setMemory(_ instruction: Instruction) {
        let mnemonic = instruction.mnemonic
        if mnemonic == .maskmovq || mnemonic == .maskmovdqu {
            access = .maskedWrite
            memorySize = mnemonic == .maskmovq ? 8 : 16
            return
        }
        for position in 0..<instruction.operandCount where instruction.kind(position) == .memory {
            memorySize = UInt16(truncatingIfNeeded: instruction.size(position))
            access = position == 0 && HostOperation.storesFirstOperand(instruction.row) ? .write : .read
            if memorySize == 16, !instruction.row.allowsUnaligned { traits.insert(.requiresAlignment) }
        }
    }

    /// Whether a memory operand in first place is written. Nothing here both reads and writes memory.
    private static func storesFirstOperand(_ row: RowID) -> Bool {
        guard row.unit == .x87 else { return true }
        switch row.mnemonic {
        case .fst, .fstp, .fist, .fistp, .fisttp, .fbstp: return true
        default: return false
        }
    }
}
