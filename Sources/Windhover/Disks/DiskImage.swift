#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Raw disk images with a file system in them, made without root and without a mount.
public enum DiskImage {
    /// Makes an ext4 file system with the contents of a directory, in a new file: a whole disk, with no partitions.
    ///
    /// The file is sparse: it takes the room of what is in it. Unused inodes are zeros that count as written, so that a guest
    /// has nothing to do in the background. Source: [MKE2FS].
    /// - Parameters:
    ///   - tree: the directory. Owners and permissions are taken over: see `Namespace` for those of others.
    ///   - path: the file, which is not there yet; after a failure it is not there either.
    ///   - label: what `LABEL=` finds it by; up to 16 bytes.
    ///   - isCancelled: asked twice a second; true ends it as `interrupted`.
    /// - Throws: `ImageError`: mke2fs is missing, the tree does not fit, the file cannot be written.
    public static func make(
        tree: String, at path: String, size: DiskSize, label: String = "root", isCancelled: @escaping () -> Bool = { false }
    ) throws(ImageError) {
        // The tree is this user's own; what it holds is to be root's.
        let words = geteuid() == 0 ? [] : ["unshare", "--map-root-user"]
        let isUsable = words.isEmpty || (try? HostCommand(words + ["true"]).run().status) == 0
        try make(tree: tree, at: path, size: size, label: label, through: isUsable ? words : [], isCancelled: isCancelled)
    }

    /// - Parameter words: stand before each command.
    static func make(
        tree: String, at path: String, size: DiskSize, label: String, through words: [String], isCancelled: @escaping () -> Bool
    ) throws(ImageError) {
        guard let program = HostProgram.find("mke2fs") else { throw .lacksProgram("mke2fs", package: "e2fsprogs") }
        guard HostFile.facts(path) == nil else { throw .exists(path: path) }
        var isWhole = false
        defer { if !isWhole { unsafe _ = unlink(path) } }
        var command = HostCommand(
            words + [
                program, "-q", "-F", "-t", "ext4", "-b", "4096", "-L", label, "-d", tree,
                "-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", "--", path, "\(size.bytes >> 10)k",
            ])
        command.isCancelled = isCancelled
        command.cancellationSignal = SIGKILL
        let result: HostCommand.Result
        do { result = try command.run() } catch { throw .cache("\(error)") }
        if isCancelled() || result.interrupted { throw .interrupted }
        guard result.status == 0 else {
            let text = result.errorText
            // What it says of a file system that is full, and of one too small for what it must hold itself.
            if text.contains("Could not allocate") || text.contains("No free space") || text.contains("too small") {
                throw .doesNotFit(content: HostFile.totalSize(tree), size: size.bytes)
            }
            throw .cache("mke2fs cannot make '\(path)': \(reason(in: text))")
        }
        do { try HostFile.finishSparse(path) } catch { throw .cache(error.description) }
        isWhole = true
    }

    /// The last line that says something: its first is its version.
    private static func reason(in errors: String) -> String {
        let lines = errors.split(separator: "\n").map { $0.split(whereSeparator: \.isWhitespace).joined(separator: " ") }
        return String((lines.last { !$0.isEmpty } ?? "no reason was given").prefix(300))
    }
}
