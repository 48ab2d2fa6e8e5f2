internal import Glibc

/// The configuration space. Source: [VIRTIO1.2 §5.11.4].
enum FileSystemConfiguration {
    static let tagBytes = 36
    static let interrupted = EINTR
    static let outOfMemory = ENOMEM

    /// The tag, filled with zeros where it is shorter, and the number of request queues.
    static func bytes(tag: String, queues: Int) -> [UInt8] {
        let name = Array(tag.utf8.prefix(tagBytes))
        let count = UInt32(truncatingIfNeeded: queues)
        return name + [UInt8](repeating: 0, count: tagBytes - name.count)
            + (0..<4).map { UInt8(truncatingIfNeeded: count >> (UInt32($0) * 8)) }
    }
}
