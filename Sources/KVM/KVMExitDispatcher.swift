internal import CKVM
internal import VMCore

/// What each exit of `KVM_RUN` means. It holds no descriptor, so a test feeds it exits of its own making.
@safe struct KVMExitDispatcher {
    let ports: Bus
    let mmio: Bus
    /// Bytes from the start of `kvm_run` that may be touched: string I/O data lies behind the structure.
    let runAreaSize: Int
    var endOfInterrupt: (any EndOfInterruptListener)?
    var statistics = ExitStatistics()

    init(ports: Bus, mmio: Bus, runAreaSize: Int) {
        self.ports = ports
        self.mmio = mmio
        self.runAreaSize = runAreaSize
    }

    /// Serves one exit.
    /// - Returns: nil where the vCPU can go on, else why it stops.
    mutating func dispatch(_ run: UnsafeMutablePointer<kvm_run>) -> VCPUExit? {
        let reason = unsafe run.pointee.exit_reason
        switch Int32(truncatingIfNeeded: reason) {
        case KVM_EXIT_IO:
            return unsafe dispatchPort(run)
        case KVM_EXIT_MMIO:
            unsafe dispatchMemory(run)
            return nil
        case KVM_EXIT_IRQ_WINDOW_OPEN:
            statistics.interruptWindows &+= 1
            return nil
        case KVM_EXIT_IOAPIC_EOI:
            statistics.endOfInterrupts &+= 1
            endOfInterrupt?.endOfInterrupt(vector: unsafe run.pointee.eoi.vector)
            return nil
        case KVM_EXIT_HLT:
            statistics.halts &+= 1
            return .halted
        case KVM_EXIT_SHUTDOWN:
            return .shutdown
        case KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR:
            // A register KVM does not know: #GP for the guest, as on a processor that lacks it.
            statistics.msrs &+= 1
            unsafe run.pointee.msr.error = 1
            unsafe run.pointee.msr.data = 0
            return nil
        case KVM_EXIT_SYSTEM_EVENT:
            return .systemEvent(unsafe Self.systemEvent(run.pointee.system_event.type))
        case KVM_EXIT_DEBUG:
            return .debug
        case KVM_EXIT_FAIL_ENTRY:
            return .failed(.entry(reason: unsafe run.pointee.fail_entry.hardware_entry_failure_reason))
        case KVM_EXIT_INTERNAL_ERROR:
            return .failed(unsafe Self.internalError(run))
        case KVM_EXIT_UNKNOWN:
            let hardware = unsafe run.pointee.hw.hardware_exit_reason
            return .failed(
                .unhandled(reason: reason, name: "KVM_EXIT_UNKNOWN, hardware reason 0x\(String(hardware, radix: 16)),"))
        case KVM_EXIT_INTR, KVM_EXIT_NMI, KVM_EXIT_SET_TPR, KVM_EXIT_X86_BUS_LOCK:
            statistics.other &+= 1
            return nil
        default:
            return .failed(.unhandled(reason: reason, name: Self.name(of: reason)))
        }
    }

    /// IN, OUT and their string forms: `count` items of `size` bytes, one after the other, all to one port.
    private mutating func dispatchPort(_ run: UnsafeMutablePointer<kvm_run>) -> VCPUExit? {
        let io = unsafe run.pointee.io
        let size = Int(io.size)
        let offset = Int(truncatingIfNeeded: io.data_offset)
        let count = Int(io.count)
        guard let width = AccessWidth(bytes: size), offset >= 0, offset <= runAreaSize,
            count <= (runAreaSize - offset) / size
        else {
            return .failed(.unhandled(reason: UInt32(KVM_EXIT_IO), name: "KVM_EXIT_IO with impossible sizes"))
        }
        var data = unsafe UnsafeMutableRawPointer(run) + offset
        let port = UInt64(io.port)
        if Int32(io.direction) == KVM_EXIT_IO_OUT {
            statistics.portWrites &+= 1
            for _ in 0..<count {
                let value: UInt64
                switch width {
                case .byte: value = unsafe UInt64(data.loadUnaligned(as: UInt8.self))
                case .word: value = unsafe UInt64(data.loadUnaligned(as: UInt16.self))
                default: value = unsafe UInt64(data.loadUnaligned(as: UInt32.self))
                }
                ports.write(port, width: width, value: value)
                unsafe data += size
            }
        } else {
            statistics.portReads &+= 1
            for _ in 0..<count {
                let value = ports.read(port, width: width)
                switch width {
                case .byte: unsafe data.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
                case .word: unsafe data.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
                default: unsafe data.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
                }
                unsafe data += size
            }
        }
        return nil
    }

    /// A load or store of 1 to 8 bytes outside RAM.
    private mutating func dispatchMemory(_ run: UnsafeMutablePointer<kvm_run>) {
        let address = unsafe run.pointee.mmio.phys_addr
        let count = Int(unsafe run.pointee.mmio.len)
        if unsafe run.pointee.mmio.is_write != 0 {
            statistics.memoryWrites &+= 1
            let value = unsafe withUnsafeBytes(of: run.pointee.mmio.data) { bytes in
                unsafe UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
            }
            mmio.write(address, count: count, value: value)
        } else {
            statistics.memoryReads &+= 1
            let value = mmio.read(address, count: count)
            unsafe withUnsafeMutableBytes(of: &run.pointee.mmio.data) { bytes in
                unsafe bytes.storeBytes(of: value.littleEndian, as: UInt64.self)
            }
        }
    }

    static func systemEvent(_ type: UInt32) -> VCPUExit.SystemEvent {
        switch Int32(truncatingIfNeeded: type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN: .powerOff
        case KVM_SYSTEM_EVENT_RESET: .reset
        case KVM_SYSTEM_EVENT_CRASH: .crash
        default: .other(type)
        }
    }

    static func internalError(_ run: UnsafeMutablePointer<kvm_run>) -> VCPUFailure {
        let suberror = unsafe run.pointee.internal.suberror
        let count = unsafe min(run.pointee.internal.ndata, 16)
        let data = (0..<count).map { unsafe ckvm_internal_data(run, $0) }
        var instruction: [UInt8] = []
        if suberror == UInt32(KVM_INTERNAL_ERROR_EMULATION) {
            let bytes = unsafe min(ckvm_emulation_byte_count(run), 15)
            instruction = (0..<bytes).map { unsafe ckvm_emulation_byte(run, $0) }
        }
        return .internal(suberror: suberror, data: data, instruction: instruction)
    }

    /// The kernel's name for an exit reason. Source: [KVM-API §5].
    static func name(of reason: UInt32) -> String {
        let names = [
            "UNKNOWN", "EXCEPTION", "IO", "HYPERCALL", "DEBUG", "HLT", "MMIO", "IRQ_WINDOW_OPEN", "SHUTDOWN",
            "FAIL_ENTRY", "INTR", "SET_TPR", "TPR_ACCESS", "S390_SIEIC", "S390_RESET", "DCR", "NMI",
            "INTERNAL_ERROR", "OSI", "PAPR_HCALL", "S390_UCONTROL", "WATCHDOG", "S390_TSCH", "EPR", "SYSTEM_EVENT",
            "S390_STSI", "IOAPIC_EOI", "HYPERV", "ARM_NISV", "X86_RDMSR", "X86_WRMSR", "DIRTY_RING_FULL",
            "AP_RESET_HOLD", "X86_BUS_LOCK", "XEN", "RISCV_SBI", "RISCV_CSR", "NOTIFY", "LOONGARCH_IOCSR",
            "MEMORY_FAULT",
        ]
        return reason < names.count ? "KVM_EXIT_" + names[Int(reason)] : "an exit newer than this monitor"
    }
}
