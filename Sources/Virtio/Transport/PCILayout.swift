internal import PCI

/// Where a virtio function's registers are, and the capabilities that say so. One region of four pages, one for each kind of
/// register, so that an engine or a guest can map one kind alone; MSI-X has a region of its own.
///
/// Source: [VIRTIO1.2 §4.1.4].
enum PCILayout {
    static let bar = 0
    static let messageBAR = 1
    static let size: UInt64 = 0x4000

    static let common: UInt64 = 0x0000
    /// Without the fields of features that are not offered: notification data and resets of single queues.
    static let commonLength: UInt64 = 0x38
    static let interruptStatus: UInt64 = 0x1000
    static let device: UInt64 = 0x2000
    static let deviceLength: UInt64 = 0x1000
    static let notify: UInt64 = 0x3000
    /// A queue's doorbell is four bytes, so that it can be written two or four bytes wide.
    static let notifyMultiplier: UInt64 = 4
    /// As many as there are doorbells in a page.
    static let queueLimit = 0x400

    /// `cfg_type` of a capability.
    private enum Kind {
        static let common: UInt8 = 1, notify: UInt8 = 2, interruptStatus: UInt8 = 3, device: UInt8 = 4, access: UInt8 = 5
    }

    /// Bytes from a capability's start to what says where its structure is.
    static let barOffset = 4, offsetOffset = 8, lengthOffset = 12
    /// The four bytes that the access capability reads and writes through.
    static let dataOffset = 16

    /// The capabilities, the one for accesses through configuration space last.
    ///
    /// - Parameter deviceLength: bytes of the device's own configuration; a device without has no capability for it.
    static func capabilities(queueCount: Int, deviceLength: Int) -> [PCICapability] {
        var list = [
            structure(Kind.common, at: common, length: commonLength),
            structure(Kind.interruptStatus, at: interruptStatus, length: 1),
        ]
        if deviceLength > 0 {
            list.append(structure(Kind.device, at: device, length: min(UInt64(deviceLength), Self.deviceLength)))
        }
        list.append(
            structure(
                Kind.notify, at: notify, length: max(1, UInt64(queueCount)) * notifyMultiplier,
                extra: little(UInt32(notifyMultiplier))))
        // The driver writes the region, the offset, the length, and the data.
        var access = structure(Kind.access, at: 0, length: 0, extra: [0, 0, 0, 0])
        access.writable = [0, 0, 0xFF, 0, 0, 0] + [UInt8](repeating: 0xFF, count: 12)
        return list + [access]
    }

    private static func structure(_ kind: UInt8, at offset: UInt64, length: UInt64, extra: [UInt8] = []) -> PCICapability {
        // The length counts the identifier and the link too.
        let body = [UInt8(16 + extra.count), kind, UInt8(bar), 0, 0, 0]
        return PCICapability(
            PCICapability.vendorSpecific,
            body + little(UInt32(truncatingIfNeeded: offset)) + little(UInt32(truncatingIfNeeded: length)) + extra)
    }

    private static func little(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    }

    /// Non-transitional: the number says the type, the revision that no driver from before the specification will do.
    /// Source: [VIRTIO1.2 §4.1.2.1].
    static func identity(_ kind: DeviceKind) -> PCIIdentity {
        let vendor: UInt16 = 0x1AF4
        let device = 0x1040 &+ UInt16(truncatingIfNeeded: kind.rawValue)
        return PCIIdentity(
            vendor: vendor, device: device, revision: 1, classCode: classCode(kind), subsystemVendor: vendor, subsystem: device)
    }

    /// What a listing shows; drivers go by the number. Source: [PCI3.0 App. D].
    private static func classCode(_ kind: DeviceKind) -> UInt32 {
        switch kind {
        case .block, .fileSystem: 0x01_80_00  // other mass storage
        case .net: 0x02_00_00  // Ethernet
        case .console: 0x07_80_00  // other communication
        case .socket: 0x02_80_00  // other network
        case .entropy, .balloon: 0x00_FF_00
        }
    }
}
