/// Feature bits of the network device. Source: [VIRTIO1.2 §5.1.3].
extension FeatureSet {
    /// The device completes checksums of frames that it is given.
    public static let netChecksum = FeatureSet(bit: 0)
    /// The driver takes frames without complete checksums.
    public static let netGuestChecksum = FeatureSet(bit: 1)
    public static let netMTU = FeatureSet(bit: 3)
    public static let netMAC = FeatureSet(bit: 5)
    public static let netGuestTSO4 = FeatureSet(bit: 7)
    public static let netGuestTSO6 = FeatureSet(bit: 8)
    public static let netHostTSO4 = FeatureSet(bit: 11)
    public static let netHostTSO6 = FeatureSet(bit: 12)
    /// A frame may be spread over several receive buffers.
    public static let netMergeableBuffers = FeatureSet(bit: 15)
    public static let netStatus = FeatureSet(bit: 16)
    public static let netControlQueue = FeatureSet(bit: 17)
    public static let netMultiqueue = FeatureSet(bit: 22)
}

extension NetworkOffloads {
    /// What a driver that accepted these features takes: segments only together with checksums.
    /// Source: [VIRTIO1.2 §5.1.3.1].
    init(accepted features: FeatureSet) {
        self = []
        guard features.contains(.netGuestChecksum) else { return }
        insert(.checksum)
        if features.contains(.netGuestTSO4) { insert(.segmentation4) }
        if features.contains(.netGuestTSO6) { insert(.segmentation6) }
    }
}
