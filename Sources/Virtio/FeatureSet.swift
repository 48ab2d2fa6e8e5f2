/// Feature bits, offered by a device or accepted by a driver. Source: [VIRTIO1.2 §6].
///
/// Bits 0 to 23 and 50 to 127 are the device type's own; each device names its own.
public struct FeatureSet: OptionSet, Hashable, Sendable, BitwiseCopyable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The set of one bit, 0 to 63.
    public init(bit: UInt64) { rawValue = 1 &<< bit }

    /// A descriptor may name a table of descriptors.
    public static let indirectDescriptors = FeatureSet(bit: 28)
    /// Each side says from which buffer on it wants to be told.
    public static let eventIndex = FeatureSet(bit: 29)
    /// Not a device from before the specification: all of ours insist on it.
    public static let version1 = FeatureSet(bit: 32)
    /// Rings in the packed layout.
    public static let packedRing = FeatureSet(bit: 34)
    /// The device uses buffers in the order in which they were made available.
    public static let inOrder = FeatureSet(bit: 35)

    /// What every device of ours offers beside its own.
    public static let common: FeatureSet = [.indirectDescriptors, .eventIndex, .version1, .packedRing]
}
