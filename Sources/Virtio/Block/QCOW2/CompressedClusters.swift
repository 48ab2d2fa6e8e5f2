internal import Synchronization

/// Reads compressed clusters, one at a time, and keeps the last one: a guest reads them in pieces.
final class CompressedClusters: Sendable {
    private struct State {
        /// The entry whose bytes are in `unpacked`; 0 for none: it has the compressed flag.
        var held: UInt64 = 0
        var packed: [UInt8] = []
        var unpacked: [UInt8] = []
    }

    private let file: any ImageFile
    private let layout: QCOW2Layout
    private let inflater: (any ClusterInflater)?
    private let state = Mutex(State())

    init(file: any ImageFile, layout: QCOW2Layout, inflater: (any ClusterInflater)?) {
        self.file = file
        self.layout = layout
        self.inflater = inflater
    }

    /// Hands the unpacked bytes from `offset` on to `body`.
    /// - Parameters:
    ///   - offset: within the cluster, as is `offset + count`.
    func withBytes(
        _ cluster: CompressedCluster, offset: Int, count: Int,
        _ body: (UnsafeRawBufferPointer) throws(BlockError) -> Void
    ) throws(BlockError) {
        guard let inflater else {
            throw .corrupt("the image has compressed clusters, and nothing to unpack them with was given")
        }
        try state.withLock { state throws(BlockError) in
            if state.held != cluster.raw { try unpack(cluster, &state, inflater) }
            try unsafe state.unpacked.span.withUnsafeBytes { (bytes) throws(BlockError) in
                try unsafe body(UnsafeRawBufferPointer(rebasing: bytes[offset..<offset &+ count]))
            }
        }
    }

    private func unpack(
        _ cluster: CompressedCluster, _ state: inout State, _ inflater: any ClusterInflater
    ) throws(BlockError) {
        state.held = 0
        if state.unpacked.isEmpty {
            state.unpacked = Array(repeating: 0, count: Int(layout.clusterSize))
            state.packed = Array(repeating: 0, count: 2 &* Int(layout.clusterSize))
        }
        let count = min(Int(clamping: cluster.count), state.packed.count)
        var span = state.packed.mutableSpan
        try unsafe span.withUnsafeMutableBytes { (bytes) throws(BlockError) in
            try unsafe file.read(at: cluster.offset, into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<count]))
        }
        let isWhole = unsafe state.packed.withUnsafeBytes { packed in
            unsafe state.unpacked.withUnsafeMutableBytes { unpacked in
                unsafe inflater.inflate(UnsafeRawBufferPointer(rebasing: packed[..<count]), into: unpacked)
            }
        }
        guard isWhole else { throw .corrupt("the compressed cluster at \(cluster.offset) cannot be unpacked") }
        state.held = cluster.raw
    }

    /// Host clusters were freed, and may hold something else from now on.
    func forget() { state.withLock { $0.held = 0 } }
}
