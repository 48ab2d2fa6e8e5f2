internal import CKVM

/// What an open KVM device says of itself: all of it, where `KVMSystem` stops at the first thing that is wrong.
public struct KVMProbe: Hashable, Sendable {
    /// 12 on every kernel since Linux 2.6.22; negative errno where the device does not answer as KVM does.
    public let apiVersion: Int32
    /// What `KVMCapability.all` lists and the host lacks, in that order; everything where it does not answer.
    public let missing: [KVMCapability]
    /// The most vCPUs a guest can have; 0 where the host does not say.
    public let maximumVCPUs: Int

    /// - Parameter descriptor: an open /dev/kvm, which stays the caller's.
    ///
    /// The corresponding ioctls are `KVM_GET_API_VERSION` and `KVM_CHECK_EXTENSION`.
    public init(descriptor: Int32) {
        func check(_ capability: KVMCapability) -> Int32 {
            max(0, ckvm_ioctl(descriptor, CKVM_CHECK_EXTENSION, UInt(UInt32(bitPattern: capability.number))))
        }
        apiVersion = ckvm_ioctl(descriptor, CKVM_GET_API_VERSION, 0)
        missing = KVMCapability.all.filter { check($0) == 0 }
        maximumVCPUs = Int(check(.maximumVCPUs))
    }
}
