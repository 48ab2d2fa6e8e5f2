internal import CKVM
internal import Glibc
public import VMCore

/// `/dev/kvm`: what the host can do, and where virtual machines come from.
public final class KVMSystem: Sendable {
    let descriptor: KVMDescriptor
    /// Bytes that each vCPU shares with the kernel.
    let runAreaSize: Int

    /// Opens the KVM device and checks that the engine can work with it.
    ///
    /// - Throws: `unavailable` where there is no device, `notPermitted` where this user may not open it, `unsupported` where
    ///   the interface is too old; each with the way out.
    ///
    /// The corresponding ioctls are `KVM_GET_API_VERSION` and `KVM_GET_VCPU_MMAP_SIZE`.
    public init(path: String = "/dev/kvm") throws(EngineError) {
        let raw = unsafe open(path, O_RDWR | O_CLOEXEC)
        guard raw >= 0 else { throw Self.openError(path: path, errno: errno) }
        let descriptor = KVMDescriptor(owning: raw)
        let version = ckvm_ioctl(raw, CKVM_GET_API_VERSION, 0)
        guard version >= 0 else {
            throw .unsupported(
                reason: "\(path) does not answer as KVM does: \(HostError.message(-version))",
                remedy: "check what \(path) is with `ls -l \(path)`: a character device 10, 232")
        }
        // 12 since Linux 2.6.22; the kernel promises never to change it.
        guard version == 12 else {
            throw .unsupported(
                reason: "\(path) speaks version \(version) of the KVM interface, not 12",
                remedy: "use a host kernel from 2.6.22 on")
        }
        runAreaSize = Int(try descriptor.call(CKVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE"))
        guard runAreaSize >= MemoryLayout<kvm_run>.size else {
            throw .unsupported(
                reason: "the host's kernel shares only \(runAreaSize) bytes a vCPU", remedy: "use a newer host kernel")
        }
        self.descriptor = descriptor
        for capability in KVMCapability.all where capability.isRequired && check(capability) == 0 {
            throw .unsupported(
                reason: "the host's KVM lacks \(capability.name) (\(capability.purpose))",
                remedy: "use a newer host kernel, or --engine auto")
        }
    }

    static func openError(path: String, errno code: Int32) -> EngineError {
        switch code {
        case ENOENT, ENODEV, ENXIO, ENOTDIR:
            return .unavailable(
                reason: "there is no usable \(path): \(HostError.message(code))",
                remedy: "load the module with `sudo modprobe kvm-intel` or `sudo modprobe kvm-amd`, "
                    + "and see that virtualisation is enabled in the firmware")
        case EACCES, EPERM:
            return .notPermitted(
                reason: "no permission to open \(path)",
                remedy: "join its group with `sudo usermod -aG kvm $USER` and log in again")
        default:
            return .unavailable(
                reason: "cannot open \(path): \(HostError.message(code))", remedy: "run `hover doctor`")
        }
    }

    /// What the host says of a capability: 0 where it lacks it, else 1 or a capability's own number.
    ///
    /// The corresponding ioctl is `KVM_CHECK_EXTENSION`.
    public func check(_ capability: KVMCapability) -> Int32 {
        max(0, ckvm_ioctl(descriptor.raw, CKVM_CHECK_EXTENSION, UInt(UInt32(bitPattern: capability.number))))
    }

    /// The most vCPUs a guest can have here.
    public var maximumVCPUs: Int {
        let most = Int(check(.maximumVCPUs))
        return most > 0 ? most : 4
    }

    /// What CPUID may tell a guest on this host.
    ///
    /// The corresponding ioctl is `KVM_GET_SUPPORTED_CPUID`.
    public func supportedCPUID() throws(EngineError) -> [CPUIDEntry] {
        var capacity = 128
        while true {
            let list = KVMList<kvm_cpuid2, kvm_cpuid_entry2>(capacity: capacity)
            unsafe list.header.pointee.nent = UInt32(capacity)
            let result = unsafe ckvm_ioctl_pointer(descriptor.raw, CKVM_GET_SUPPORTED_CPUID, list.header)
            if result == -E2BIG, capacity < 4096 {
                capacity *= 2
                continue
            }
            guard result >= 0 else { throw .host(call: "KVM_GET_SUPPORTED_CPUID", errno: -result) }
            let entries = unsafe ckvm_cpuid_entries(list.header)
            let count = unsafe min(Int(list.header.pointee.nent), capacity)
            return (0..<count).map { unsafe CPUIDEntry(entries[$0]) }
        }
    }

    /// The model-specific registers whose values make up a vCPU's state here.
    ///
    /// The corresponding ioctl is `KVM_GET_MSR_INDEX_LIST`.
    public func stateMSRs() throws(EngineError) -> [UInt32] {
        let capacity = 4096
        let list = KVMList<kvm_msr_list, UInt32>(capacity: capacity)
        unsafe list.header.pointee.nmsrs = UInt32(capacity)
        try unsafe descriptor.call(CKVM_GET_MSR_INDEX_LIST, "KVM_GET_MSR_INDEX_LIST", at: list.header)
        let indices = unsafe ckvm_msr_indices(list.header)
        let count = unsafe min(Int(list.header.pointee.nmsrs), capacity)
        return (0..<count).map { unsafe indices[$0] }
    }
}

/// A KVM structure that ends in a flexible array, with room for `capacity` elements; zeroed.
@safe final class KVMList<Header, Element> {
    let header: UnsafeMutablePointer<Header>
    private let bytes: UnsafeMutableRawPointer

    init(capacity: Int) {
        // One element more than asked: a header's size may include padding that the array starts in.
        let size = MemoryLayout<Header>.stride + (capacity + 1) * MemoryLayout<Element>.stride
        unsafe bytes = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
        unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        unsafe header = bytes.assumingMemoryBound(to: Header.self)
    }

    deinit { unsafe bytes.deallocate() }
}
