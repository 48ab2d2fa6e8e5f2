internal import CHost

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// Why no thunk can be made here.
enum HostOperationsError: Error, Equatable {
    /// The host refuses memory that is executable; `call` names what failed, `code` is its errno.
    case noExecutableMemory(call: String, code: Int32)
}

extension HostOperationsError: CustomStringConvertible {
    var description: String {
        switch self {
        case .noExecutableMemory(let call, let code):
            "the software CPU needs executable memory for floating-point instructions, and the host refuses it: "
                + "\(call) failed with errno \(code). A seccomp filter, SELinux's execmem or the sysctl vm.memfd_noexec "
                + "can be the cause."
        }
    }
}

/// Memory that holds code: one file, mapped twice, writable here and executable there. No page is ever both.
///
/// It only grows, up to a size fixed beforehand, and stays for the life of the process.
@safe struct ThunkArea: ~Copyable {
    private let writable: UnsafeMutableRawPointer
    private let executable: UInt
    private let byteCount: Int
    private(set) var used: Int

    init(byteCount: Int) throws(HostOperationsError) {
        let descriptor = unsafe chost_code_file("windhover-thunks")
        guard descriptor >= 0 else { throw .noExecutableMemory(call: "memfd_create", code: -descriptor) }
        defer { close(descriptor) }
        guard ftruncate(descriptor, byteCount) == 0 else {
            throw .noExecutableMemory(call: "ftruncate", code: errno)
        }
        let data = unsafe try ThunkArea.map(descriptor, byteCount, PROT_READ | PROT_WRITE)
        let code = unsafe try ThunkArea.map(descriptor, byteCount, PROT_READ | PROT_EXEC)
        let result = unsafe chost_trap_floating_point(code, code + byteCount)
        guard result == 0 else { throw .noExecutableMemory(call: "sigaction", code: -result) }
        unsafe writable = data
        executable = UInt(bitPattern: code)
        self.byteCount = byteCount
        used = 0
    }

    private static func map(
        _ descriptor: Int32, _ byteCount: Int, _ protection: Int32
    ) throws(HostOperationsError) -> UnsafeMutableRawPointer {
        let address = unsafe mmap(nil, byteCount, protection, MAP_SHARED, descriptor, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw .noExecutableMemory(call: "mmap", code: errno)
        }
        return unsafe address
    }

    /// Adds code.
    /// - Returns: the address at which it can be called, 16-byte-aligned; nil where there is no room left.
    mutating func add(_ code: [UInt8]) -> UInt? {
        let start = (used + 15) & ~15
        guard code.count <= byteCount - start else { return nil }
        unsafe code.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress {
                unsafe (writable + start).copyMemory(from: base, byteCount: bytes.count)
            }
        }
        used = start + code.count
        return executable + UInt(start)
    }
}
