import Glibc
import MonitorTesting
import Testing
import X86

@testable import SoftCPU

@Suite struct FloatingPointFormTests {
    /// Whatever a guest executes, its forms find room: all there are, by every row, width, register or memory, and
    /// every immediate.
    @Test func everyFormFits() throws {
        let operations = try HostOperations.open()
        let features = HostFeatures()
        var forms: Set<UInt64> = []
        var bytes = 0
        for row in RowID.all where HostOperations.covers(row) && row.usesModRM && features.has(row.feature) {
            for form in Self.forms(of: row) where forms.insert(form.key).inserted {
                bytes += (ThunkEmitter.thunk(form).count + 15) & ~15
            }
        }
        print("floating point: \(forms.count) forms take at most \(bytes) bytes")
        #expect(bytes < HostOperations.capacity)
        #expect(operations.usage.bytes < HostOperations.capacity)
    }

    private static func forms(of row: RowID) -> [ThunkForm] {
        var result: [ThunkForm] = []
        var prefixes: [[UInt8]] = [[], [0x40], [0x48]]
        if row.mnemonic == .crc32 { prefixes.append([0x66]) }
        for prefix in prefixes {
            let legacy = prefix.first == 0x66 ? prefix : []
            let rex = prefix.first == 0x66 ? [] : prefix
            for memory in [false, true] where row.wantsMemory != !memory {
                let numbers = row.unit == .x87 && !memory && row.modRMRM == nil ? Array(UInt8(0)..<8) : [row.modRMRM ?? 1]
                for number in numbers {
                    var bytes = legacy
                    if row.mandatoryPrefix != 0 { bytes.append(row.mandatoryPrefix) }
                    bytes += rex
                    switch row.map {
                    case .map0F: bytes.append(0x0F)
                    case .map0F38: bytes += [0x0F, 0x38]
                    case .map0F3A: bytes += [0x0F, 0x3A]
                    default: break
                    }
                    bytes += [row.opcode, (memory ? 0 : 0xC0) | (row.modRMReg ?? 1) << 3 | number]
                    result += immediates(bytes, row)
                }
            }
        }
        return result
    }

    private static func immediates(_ bytes: [UInt8], _ row: RowID) -> [ThunkForm] {
        func form(_ tail: [UInt8]) -> ThunkForm? {
            let all = bytes + tail
            guard let instruction = try? Decoder.decode(all, count: all.count, mode: .bits64), instruction.row == row
            else { return nil }
            return ThunkForm(instruction)
        }
        guard let first = form([0, 0]) else { return [] }
        switch first.immediateCount {
        case 0: return [first]
        case 1: return (0..<256).compactMap { form([UInt8($0), 0]) }
        default: return (0..<4096).compactMap { form([UInt8($0 & 0x3F), UInt8($0 >> 6)]) }
        }
    }
}

extension FloatingPointFormTests {
    /// No instruction reads or writes past the operand that it says it has: the guest's memory may end there.
    @Test func operandsMayEndWithTheirPage() throws {
        let operations = try HostOperations.open()
        var generator = CaseGenerator(state: 5)
        let page = 4096
        let pages = try #require(
            mmap(nil, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        try #require(pages != MAP_FAILED && mprotect(pages + page, page, PROT_NONE) == 0)
        let image = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        let general = UnsafeMutablePointer<UInt64>.allocate(capacity: 16)
        defer {
            munmap(pages, 2 * page)
            image.deallocate()
            general.deallocate()
        }
        var operands = 0
        for row in RowID.all where HostOperations.covers(row) && row.wantsMemory != false && row.usesModRM {
            for _ in 0..<60 {
                guard let (bytes, instruction) = generator.encoding(of: row) else { continue }
                guard let operation = operations.prepare(instruction, bytes: bytes) else { break }
                guard operation.access == .read || operation.access == .write else { continue }
                operands += 1
                FXSaveImage.reset(image)
                // Four of the eight x87 registers hold something, so that loads and stores alike find room.
                image.storeBytes(of: 0x0F, toByteOffset: FXSaveImage.ftw, as: UInt8.self)
                pages.initializeMemory(as: UInt8.self, repeating: 0, count: page)
                let size = Int(operation.memorySize)
                #expect(!operation.requiresAlignment || size % 16 == 0)
                let outcome = operation.run(
                    image, general, pages + (page - size), HostOperation.Context(), instructionPointer: 0, dataPointer: 0)
                #expect(outcome.isDone, "\(row.mnemonic)")
                let before = UnsafeRawBufferPointer(start: pages + (page - size - 64), count: 64)
                #expect(before.allSatisfy { $0 == 0 }, "\(row.mnemonic) writes before its operand")
            }
        }
        #expect(operands > 5000)
    }

    /// What handlers execute in place does what the instruction does.
    @Test func hotOperationsAgreeWithThunks() throws {
        let operations = try HostOperations.open()
        var generator = CaseGenerator(state: 4)
        var met: Set<HotVector> = []
        let image = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 64)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
        let general = UnsafeMutablePointer<UInt64>.allocate(capacity: 16)
        defer {
            image.deallocate()
            memory.deallocate()
            general.deallocate()
        }
        for row in RowID.all where HostOperations.covers(row) && row.unit == .sse {
            for _ in 0..<40 {
                guard let (bytes, instruction) = generator.encoding(of: row) else { continue }
                guard let hot = HotVector.classify(instruction) else { break }
                met.insert(hot)
                let operation = try #require(operations.prepare(instruction, bytes: bytes))
                #expect(operation.unit == .plain && !operation.writesFlags)
                let start = generator.image()
                let data = generator.vector()
                let registers = (0..<16).map { _ in generator.general() }
                func reset() {
                    image.copyMemory(from: start, byteCount: 512)
                    memory.copyMemory(from: data, byteCount: 16)
                    general.update(from: registers, count: 16)
                }
                func result() -> [UInt8] {
                    [UInt8](UnsafeRawBufferPointer(start: image, count: 512))
                        + [UInt8](UnsafeRawBufferPointer(start: memory, count: 16))
                        + [UInt8](UnsafeRawBufferPointer(start: general, count: 128))
                }
                reset()
                #expect(operation.runPlain(image, general, memory) == .done)
                let expected = result()
                reset()
                func address(_ operand: HostOperation.Operand) -> UInt {
                    switch operand.base {
                    case .image: UInt(bitPattern: image) + UInt(operand.offset)
                    case .general: UInt(bitPattern: general) + UInt(operand.offset)
                    case .memory: UInt(bitPattern: memory) + UInt(operand.offset)
                    }
                }
                hot.execute(
                    destination: address(operation.destination), source: address(operation.source),
                    immediate: UInt8(truncatingIfNeeded: instruction.immediate))
                #expect(difference(of: result(), from: expected) == nil, "\(hot): \(row.mnemonic) \(bytes.map { String($0, radix: 16) })")
            }
        }
        #expect(met == Set(HotVector.allCases))
    }
}
