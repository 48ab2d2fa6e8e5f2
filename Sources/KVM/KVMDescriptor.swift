internal import CKVM
internal import Glibc
internal import VMCore

/// An open descriptor of the KVM interface: the system, a virtual machine or a vCPU. Closed when it goes.
struct KVMDescriptor: ~Copyable {
    let raw: Int32

    init(owning raw: Int32) { self.raw = raw }

    deinit { close(raw) }

    /// One ioctl with an integer argument, tried again where a signal interrupts it.
    ///
    /// - Returns: its result, never negative.
    /// - Throws: `EngineError.host` with the call's name.
    @discardableResult
    func call(_ request: UInt, _ name: String, _ argument: UInt = 0) throws(EngineError) -> Int32 {
        for _ in 0..<1000 {
            let result = ckvm_ioctl(raw, request, argument)
            if result >= 0 { return result }
            guard result == -EINTR else { throw .host(call: name, errno: -result) }
        }
        throw .host(call: name, errno: EINTR)
    }

    /// One ioctl with a structure argument, which it may read, write or both.
    @discardableResult
    func call<Argument>(_ request: UInt, _ name: String, _ argument: inout Argument) throws(EngineError) -> Int32 {
        var result: Int32 = 0
        for _ in 0..<1000 {
            result = unsafe withUnsafeMutablePointer(to: &argument) { pointer in
                unsafe ckvm_ioctl_pointer(raw, request, pointer)
            }
            if result >= 0 { return result }
            guard result == -EINTR else { break }
        }
        throw .host(call: name, errno: -result)
    }

    /// One ioctl on a structure with a flexible array, at `argument`.
    @discardableResult
    func call(
        _ request: UInt, _ name: String, at argument: UnsafeMutableRawPointer
    ) throws(EngineError) -> Int32 {
        var result: Int32 = 0
        for _ in 0..<1000 {
            result = unsafe ckvm_ioctl_pointer(raw, request, argument)
            if result >= 0 { return result }
            guard result == -EINTR else { break }
        }
        throw .host(call: name, errno: -result)
    }
}
