import CKVM
import Testing
import VMCore
@testable import KVM

/// Remembers what reached it; answers reads with a counter's bytes.
final class Recorder: BusDevice, @unchecked Sendable {
    var log: [String] = []
    var answer: UInt64 = 0x1122_3344_5566_7788
    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        log.append("r\(width.rawValue)@\(offset)")
        return answer
    }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        log.append("w\(width.rawValue)@\(offset)=\(String(value, radix: 16))")
    }
}

/// Feeds the dispatcher exits of a test's making.
private struct Synthetic {
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: 12288, alignment: 4096)
    var run: UnsafeMutablePointer<kvm_run> { bytes.assumingMemoryBound(to: kvm_run.self) }
    let device = Recorder()
    var dispatcher: KVMExitDispatcher

    init() throws {
        bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 12288)
        var map = BusMap()
        try map.add(device, name: "test", base: 0x100, count: 0x100, widest: .quad)
        dispatcher = KVMExitDispatcher(ports: Bus(map), mmio: Bus(map), runAreaSize: 12288)
    }
}

@Suite struct ExitDispatcherTests {
    @Test func stringOutputWritesEachItem() throws {
        var test = try Synthetic()
        defer { test.bytes.deallocate() }
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_IO)
        test.run.pointee.io.direction = UInt8(KVM_EXIT_IO_OUT)
        test.run.pointee.io.size = 2
        test.run.pointee.io.port = 0x110
        test.run.pointee.io.count = 3
        test.run.pointee.io.data_offset = 4096
        for (index, value) in [UInt16(0xAAAA), 0xBBBB, 0xCCCC].enumerated() {
            test.bytes.storeBytes(of: value, toByteOffset: 4096 + 2 * index, as: UInt16.self)
        }
        #expect(test.dispatcher.dispatch(test.run) == nil)
        #expect(test.device.log == ["w2@16=aaaa", "w2@16=bbbb", "w2@16=cccc"])
        #expect(test.dispatcher.statistics.portWrites == 1)
    }

    @Test func inputFillsTheData() throws {
        var test = try Synthetic()
        defer { test.bytes.deallocate() }
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_IO)
        test.run.pointee.io.direction = UInt8(KVM_EXIT_IO_IN)
        test.run.pointee.io.size = 4
        test.run.pointee.io.port = 0x100
        test.run.pointee.io.count = 1
        test.run.pointee.io.data_offset = 4096
        #expect(test.dispatcher.dispatch(test.run) == nil)
        #expect(test.bytes.load(fromByteOffset: 4096, as: UInt32.self) == 0x5566_7788)
    }

    @Test(arguments: [(3, 1, 4096), (1, 8193, 4096), (4, 1, 12287), (1, 1, 20000), (8, 1025, 4096), (0, 1, 4096)])
    func impossiblePortExitsAreReported(size: Int, count: Int, offset: Int) throws {
        var test = try Synthetic()
        defer { test.bytes.deallocate() }
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_IO)
        test.run.pointee.io.size = UInt8(size)
        test.run.pointee.io.count = UInt32(count)
        test.run.pointee.io.data_offset = UInt64(offset)
        guard case .failed = test.dispatcher.dispatch(test.run) else {
            Issue.record("an impossible exit was served")
            return
        }
    }

    @Test(arguments: 1...8) func memoryAccessesOfEveryLength(count: Int) throws {
        var test = try Synthetic()
        defer { test.bytes.deallocate() }
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_MMIO)
        test.run.pointee.mmio.phys_addr = 0x120
        test.run.pointee.mmio.len = UInt32(count)
        test.run.pointee.mmio.is_write = 0
        test.device.answer = .max
        #expect(test.dispatcher.dispatch(test.run) == nil)
        let read = withUnsafeBytes(of: test.run.pointee.mmio.data) { $0.loadUnaligned(as: UInt64.self) }
        #expect(read == (count == 8 ? UInt64.max : (1 << (8 * UInt64(count))) - 1))
        test.run.pointee.mmio.is_write = 1
        #expect(test.dispatcher.dispatch(test.run) == nil)
        #expect(test.dispatcher.statistics.memoryWrites == 1)
    }

    @Test func everyOtherReasonIsNamedOrHandled() throws {
        var test = try Synthetic()
        defer { test.bytes.deallocate() }
        for reason in UInt32(0)...64 where ![2, 6].contains(reason) {
            test.run.pointee.exit_reason = reason
            if case .failed(let failure) = test.dispatcher.dispatch(test.run) {
                #expect(!failure.description.isEmpty)
            }
        }
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_HYPERCALL)
        #expect(
            test.dispatcher.dispatch(test.run)
                == .failed(.unhandled(reason: 3, name: "KVM_EXIT_HYPERCALL")))
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_SHUTDOWN)
        #expect(test.dispatcher.dispatch(test.run) == .shutdown)
    }

    @Test func anEmulationFailureCarriesItsBytes() throws {
        var test = try Synthetic()
        defer { test.bytes.deallocate() }
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_INTERNAL_ERROR)
        test.run.pointee.emulation_failure.suberror = UInt32(KVM_INTERNAL_ERROR_EMULATION)
        test.run.pointee.emulation_failure.ndata = 3
        test.run.pointee.emulation_failure.flags = UInt64(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
        test.run.pointee.emulation_failure.insn_size = 3
        test.run.pointee.emulation_failure.insn_bytes.0 = 0x0F
        test.run.pointee.emulation_failure.insn_bytes.1 = 0xC7
        guard case .failed(.internal(let suberror, _, let bytes)) = test.dispatcher.dispatch(test.run) else {
            Issue.record("not an internal error")
            return
        }
        #expect(suberror == 1)
        #expect(bytes == [0x0F, 0xC7, 0x00])
    }

    @Test func anUnknownRegisterIsAGeneralProtectionFault() throws {
        var test = try Synthetic()
        defer { test.bytes.deallocate() }
        test.run.pointee.exit_reason = UInt32(KVM_EXIT_X86_RDMSR)
        #expect(test.dispatcher.dispatch(test.run) == nil)
        #expect(test.run.pointee.msr.error == 1)
        #expect(test.dispatcher.statistics.msrs == 1)
    }
}
