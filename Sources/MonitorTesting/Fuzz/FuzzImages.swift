internal import Glibc
internal import Virtio

/// Disks for fuzzing: files that have no name any more once they are open.
enum FuzzImages {
    private static let size = 1 << 20

    static func raw(isReadOnly: Bool) throws -> RawImage {
        let directory = TemporaryDirectory(inMemory: ())
        let path = directory.path + "/disk"
        try write([], to: path, size: size)
        return try RawImage(path: path, options: RawImageOptions(isReadOnly: isReadOnly))
    }

    /// - Parameter mutations: how many bytes of the tables are changed, at most.
    /// - Returns: nil where none of a few such files could be opened.
    static func qcow2(mutations: Int, _ random: inout SeededRandom) throws -> QCOW2Image? {
        let template = try templates.get()[random.below(3)]
        let directory = TemporaryDirectory(inMemory: ())
        let path = directory.path + "/disk"
        for _ in 0..<16 {
            var bytes = template.bytes
            if mutations > 0 {
                for _ in 0..<(1 + random.below(mutations)) {
                    let place = template.targets[random.below(template.targets.count)]
                    bytes[place] = random.oneIn(2) ? bytes[place] ^ 1 << UInt8(random.below(8)) : UInt8(random.below(256))
                }
            }
            try write(bytes, to: path, size: bytes.count)
            if let image = try? QCOW2Image.open(
                path: path, readOnly: random.oneIn(8), backing: .absent, inflater: FuzzInflater())
            {
                return image
            }
        }
        return nil
    }

    private struct Template: Sendable {
        let bytes: [UInt8]
        /// Bytes that mean something: the header's, and those of tables.
        let targets: [Int]
    }

    private static let templates = Result { try [9, 12, 16].map { try makeTemplate(clusterBits: $0) } }

    private static func makeTemplate(clusterBits: Int) throws -> Template {
        let directory = TemporaryDirectory(inMemory: ())
        let path = directory.path + "/disk"
        try QCOW2Image.create(path: path, QCOW2Parameters(size: UInt64(size), clusterBits: clusterBits))
        do {
            let image = try QCOW2Image.open(path: path)
            for start in [0, 70 << 10, 300 << 10] {
                var bytes = [UInt8](repeating: 1, count: 9 << 10)
                try unsafe bytes.withUnsafeMutableBytes { bytes in
                    var vector = unsafe iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
                    try unsafe withUnsafeMutablePointer(to: &vector) {
                        try unsafe image.write(at: UInt64(start), from: UnsafeMutableBufferPointer(start: $0, count: 1))
                    }
                }
            }
            try image.writeZeroes(at: 128 << 10, count: 64 << 10, mayUnmap: false)
            try image.flush()
        }
        let bytes = try read(path)
        return Template(
            bytes: bytes,
            targets: Array(0..<112)
                + bytes.indices.dropFirst(112).filter { index in
                    bytes[index] > 1 || (index + 7 < bytes.count && bytes[index + 7] > 1)
                })
    }

    private static func write(_ bytes: [UInt8], to path: String, size: Int) throws {
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FuzzPeer.NoSocket(errno: errno) }
        defer { close(descriptor) }
        guard ftruncate(descriptor, size) == 0 else { throw FuzzPeer.NoSocket(errno: errno) }
        let count = unsafe bytes.withUnsafeBytes { unsafe pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        guard count == bytes.count else { throw FuzzPeer.NoSocket(errno: errno) }
    }

    private static func read(_ path: String) throws -> [UInt8] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FuzzPeer.NoSocket(errno: errno) }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: Int(lseek(descriptor, 0, SEEK_END)))
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe pread(descriptor, $0.baseAddress, $0.count, 0) }
        return Array(bytes.prefix(max(0, count)))
    }
}

/// Unpacks nothing, and does not mind what it is given.
private final class FuzzInflater: ClusterInflater {
    func inflate(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Bool {
        unsafe output.initializeMemory(as: UInt8.self, repeating: input.first ?? 0)
        return input.count % 3 != 0
    }
}
