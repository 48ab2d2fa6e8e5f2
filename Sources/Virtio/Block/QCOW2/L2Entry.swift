/// Where a guest cluster's bytes are: one entry of an L2 table, checked as far as it can be without the rest of the image.
///
/// Source: [QCOW2 §Cluster mapping].
enum L2Entry: Hashable {
    /// The backing file's, or zero.
    case unallocated
    /// Zero; with a host cluster that is set aside for it, by its number.
    case zero(cluster: UInt64?, isCopied: Bool)
    /// `isCopied`: nobody else refers to the host cluster; it may be written in place.
    case standard(cluster: UInt64, isCopied: Bool)
    case compressed(CompressedCluster)

    static let copiedFlag: UInt64 = 1 << 63
    static let compressedFlag: UInt64 = 1 << 62
    static let zeroFlag: UInt64 = 1
    static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00

    init(_ raw: UInt64, _ layout: QCOW2Layout) throws(BlockError) {
        if raw & Self.compressedFlag != 0 {
            self = .compressed(CompressedCluster(raw, layout))
            return
        }
        let offset = raw & Self.offsetMask
        let isCopied = raw & Self.copiedFlag != 0
        guard offset & layout.clusterMask == 0 else {
            throw .corrupt("an L2 entry, \(String(raw, radix: 16)), is not at a cluster boundary")
        }
        let cluster = offset == 0 ? nil : offset &>> layout.clusterBits
        if raw & Self.zeroFlag != 0 {
            guard layout.hasZeroFlag else { throw .corrupt("an L2 entry of version 2 has a zero flag") }
            self = .zero(cluster: cluster, isCopied: isCopied)
        } else if let cluster {
            self = .standard(cluster: cluster, isCopied: isCopied)
        } else {
            guard !isCopied else { throw .corrupt("an L2 entry has a copied flag and no cluster") }
            self = .unallocated
        }
    }

    /// The host clusters it refers to.
    func hostClusters(_ layout: QCOW2Layout) -> ClosedRange<UInt64>? {
        switch self {
        case .unallocated: nil
        case .zero(let cluster, _): cluster.map { $0...$0 }
        case .standard(let cluster, _): cluster...cluster
        case .compressed(let packed): packed.hostClusters(layout)
        }
    }
}

/// Where a compressed cluster's bytes are. Source: [QCOW2 §Cluster mapping], Compressed Clusters Descriptor.
struct CompressedCluster: Hashable {
    let raw: UInt64
    /// In the file; of any alignment.
    let offset: UInt64
    /// Bytes from there to the end of the last sector: no more than two clusters.
    let count: UInt64

    init(_ raw: UInt64, _ layout: QCOW2Layout) {
        self.raw = raw
        let shift = 70 &- layout.clusterBits
        offset = raw & (1 &<< shift &- 1)
        let sectors = raw &>> shift & (1 &<< (62 &- shift) &- 1)
        count = (sectors &+ 1) &* 512 &- offset & 511
    }

    func hostClusters(_ layout: QCOW2Layout) -> ClosedRange<UInt64> {
        offset &>> layout.clusterBits...(offset &+ count &- 1) &>> layout.clusterBits
    }
}
