import CHost
import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A directory that is shared, one beside it that is not, and a client that has it mounted.
final class ShareRig {
    let tree: Tree
    let events = ManualEvents()
    let device: FileSystemDevice
    let client: FUSEClient

    init(
        _ tree: Tree = Tree(), isReadOnly: Bool = false, transport: TransportKind = .current,
        ring: FeatureSet = [.indirectDescriptors], mounts: Bool = true, _ edit: (inout ShareOptions) -> Void = { _ in }
    ) throws {
        self.tree = tree
        var options = ShareOptions()
        edit(&options)
        device = try FileSystemDevice(
            directory: tree.share, tag: "test", isReadOnly: isReadOnly, options: options, events: events, clock: events.clock)
        client = try FUSEClient(device, events: events, transport: transport, ring: ring)
        if mounts { try client.mount() }
    }

    var needsReset: Bool { client.transport.readStatus().contains(.needsReset) }
}

/// Fresh directories of the host's, gone with this object.
final class Tree: Sendable {
    private let directory = TemporaryDirectory()
    var root: String { directory.path }
    /// What is shared.
    var share: String { root + "/share" }
    /// What the same is done to without a share.
    var twin: String { root + "/twin" }
    /// What no guest may reach.
    var outside: String { root + "/outside" }

    init() {
        for path in [share, twin, outside] { mkdir(path, 0o755) }
        Tree.write("secret", to: outside + "/secret")
    }

    static func names(_ path: String) -> [String] { TemporaryDirectory.names(in: path) }
    static func remove(_ path: String) { TemporaryDirectory.remove(path) }

    static func status(_ path: String) -> stat? {
        var status = stat()
        return lstat(path, &status) == 0 ? status : nil
    }

    static func kind(_ path: String) -> mode_t { (status(path)?.st_mode ?? 0) & S_IFMT }

    static func write(_ text: String, to path: String) { write(Array(text.utf8), to: path) }

    static func write(_ bytes: [UInt8], to path: String) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        _ = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
    }

    static func read(_ path: String) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_NONBLOCK)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var all: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = Glibc.read(descriptor, &piece, piece.count)
            guard count > 0 else { return all }
            all += piece[..<count]
        }
    }

    static func text(_ path: String) -> String { String(decoding: read(path), as: UTF8.self) }

    static func target(_ path: String) -> String {
        var bytes = [CChar](repeating: 0, count: 4097)
        let count = readlink(path, &bytes, 4096)
        return count < 0 ? "" : String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// - Returns: how long it is, or -errno.
    static func attribute(_ name: String, of path: String, _ value: inout [UInt8]) -> Int {
        let place = open(path, chost_open_path | O_NOFOLLOW)
        defer { close(place) }
        return chost_file_get_attribute(place, name, &value, UInt(value.count))
    }

    static func set(attribute name: String, _ value: [UInt8], of path: String) {
        let place = open(path, chost_open_path | O_NOFOLLOW)
        defer { close(place) }
        _ = chost_file_set_attribute(place, name, value, UInt(value.count), 0)
    }

    /// All that is below a directory, in words that are the same for trees that are the same.
    static func snapshot(_ path: String) -> [String: String] {
        var all: [String: String] = [:]
        func visit(_ path: String, _ name: String) {
            guard let status = status(path) else { return }
            var words = "\(String(status.st_mode, radix: 8)) \(status.st_uid):\(status.st_gid) links \(status.st_nlink)"
            switch status.st_mode & S_IFMT {
            case S_IFDIR: for child in names(path) { visit(path + "/" + child, name + "/" + child) }
            case S_IFREG: words += " size \(status.st_size) \(read(path).hashValue)"
            case S_IFLNK: words += " -> \(target(path))"
            default: break
            }
            if status.st_mode & S_IFMT != S_IFLNK {
                var value = [UInt8](repeating: 0, count: 256)
                let count = attribute("user.test", of: path, &value)
                if count >= 0 { words += " \(value[..<count])" }
            }
            all[name] = words
        }
        visit(path, "")
        return all
    }
}

/// What a call of the host's leaves: 0 or an errno.
func errnoOf(_ body: () -> Int32) -> Int32 { body() == 0 ? 0 : errno }

/// What a share answers: 0 or an errno.
func errnoOf(_ body: () throws -> Void) throws -> Int32 {
    do {
        try body()
        return 0
    } catch let failure as FUSEFailure { return failure.code }
}
