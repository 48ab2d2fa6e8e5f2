#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

import FoundationEssentials

/// A disk that was made here.
public struct Disk: Hashable, Sendable {
    /// "debian", "small".
    public let name: String
    public let path: String
    /// Bytes that a guest sees.
    public let size: UInt64
    /// Bytes that it takes on the host.
    public let allocated: UInt64
    /// What is on it, in a few words.
    public let contents: String

    public init(name: String, path: String, size: UInt64, allocated: UInt64, contents: String) {
        self.name = name
        self.path = path
        self.size = size
        self.allocated = allocated
        self.contents = contents
    }
}

/// What to make a disk of.
public enum DiskRecipe: Hashable, Sendable {
    /// A Debian system with these packages beside its own.
    case debian(packages: [String])
    /// The small root's busybox, with a script that its init runs in place of a shell.
    case small(script: String?)

    public var name: String {
        switch self {
        case .debian: "debian"
        case .small: "small"
        }
    }

    /// Lower-case letters, digits, `+`, `-` and `.`, two or more of them, a letter or digit first: what can neither be an option
    /// nor have apt do something else. Source: [DEBIAN-POLICY §5.6.1].
    public static func isPackageName(_ text: String) -> Bool {
        func isWord(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) }
        guard text.utf8.count >= 2, let first = text.utf8.first, isWord(first) else { return false }
        return text.utf8.allSatisfy { isWord($0) || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") }
            // At a name's end they are apt's words for installing and removing.
            && text.utf8.last != UInt8(ascii: "-")
    }

    public var defaultSize: UInt64 {
        switch self {
        case .debian: 2 << 30
        case .small: 16 << 20
        }
    }
}

/// Disks of the store: each a directory under `disks`, with the image and a description, put there by one rename. A guest
/// writes to a disk: other than an image's, its bytes are nobody's but its user's from then on.
extension ImageStore {
    /// Names of what `makeDisk` makes.
    public static let diskNames = ["debian", "small"]

    private struct Description: Codable {
        var contents: String
    }

    private static let diskFile = "disk.img"
    private static let descriptionFile = "disk.json"
    private var diskDirectory: String { cacheDirectory + "/disks" }

    /// A disk that is there.
    public func disk(_ name: String) -> Disk? {
        guard Self.diskNames.contains(name) else { return nil }
        let directory = "\(diskDirectory)/\(name)"
        let path = "\(directory)/\(Self.diskFile)"
        guard let facts = HostFile.facts(path), facts.isRegular, facts.size > 0 else { return nil }
        let text = (try? HostFile.contents(of: "\(directory)/\(Self.descriptionFile)", limit: 1 << 16)) ?? []
        let description = try? JSONDecoder().decode(Description.self, from: Data(text))
        return Disk(
            name: name, path: path, size: facts.size, allocated: min(facts.size, facts.allocated),
            contents: description?.contents ?? "")
    }

    /// Every disk that is there, by name.
    public func disks() -> [Disk] { Self.diskNames.compactMap { disk($0) } }

    /// Makes a disk.
    ///
    /// - Parameters:
    ///   - output: the file to make; nil to keep it in the store.
    ///   - replace: whether a file or disk that is there goes.
    ///   - isCancelled: asked twice a second; true ends it as `interrupted`.
    ///   - progress: called on this thread, now and then.
    /// - Returns: the disk.
    /// - Throws: `ImageError`; nothing is left then, and what was there still is.
    public func makeDisk(
        _ recipe: DiskRecipe, size: DiskSize, output: String? = nil, replace: Bool = false,
        isCancelled: @escaping () -> Bool = { false }, progress: @escaping (FetchProgress) -> Void = { _ in }
    ) throws(ImageError) -> Disk {
        let name = recipe.name
        if !replace, let path = output ?? disk(name)?.path, HostFile.facts(path) != nil { throw .exists(path: path) }
        // Not after minutes of work.
        if let output { try Self.check(output) }
        // Before the lock, which fetching takes as well.
        var linux: ImageFiles?
        if case .small = recipe {
            linux = locate("linux")
            if linux == nil { linux = try fetch("linux", isCancelled: isCancelled, progress: progress).files }
        }
        do {
            try HostFile.makeDirectory(temporaries)
            if output == nil { try HostFile.makeDirectory(diskDirectory) }
        } catch { throw .cache("\(error); work is done there unless XDG_CACHE_HOME names another directory") }
        let lock = try Lock(cacheDirectory + "/lock") { progress(FetchProgress(step: .waiting, fraction: 0)) }
        defer { lock.unlock() }
        removeLeftovers()
        let work = "\(temporaries)/\(getpid())"
        defer { Namespace.removeTree(work) }
        do {
            try HostFile.makeDirectory(work + "/disk")
            // Beside the file it is to become, so that one rename makes it that.
            let image = output.map(Self.partial) ?? "\(work)/disk/\(Self.diskFile)"
            defer { if output != nil { unsafe _ = unlink(image) } }
            let contents: String
            switch recipe {
            case .debian(let packages):
                contents = try DebianDisk(
                    work: work, packages: packages, size: size, tools: tools, isCancelled: isCancelled, progress: progress
                ).make(at: image)
            case .small(let script):
                progress(FetchProgress(step: .fileSystem, fraction: 0))
                try SmallDisk(initrd: linux?.initrd ?? "").make(
                    at: image, size: size, script: script, work: work + "/tree", isCancelled: isCancelled)
                contents = script == nil ? "busybox" : "busybox and a script"
            }
            progress(FetchProgress(step: .finish, fraction: 0.99))
            if isCancelled() { throw ImageError.interrupted }
            guard let output else {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
                let text = try encoder.encode(Description(contents: contents))
                try HostFile.create("\(work)/disk/\(Self.descriptionFile)", with: Array(text))
                try HostFile.replace("\(diskDirectory)/\(name)", with: work + "/disk")
                try HostFile.synchronize(diskDirectory)
                guard let disk = disk(name) else { throw ImageError.cache("the disk \(name) was made and is not there") }
                progress(FetchProgress(step: .finish, fraction: 1))
                return disk
            }
            try HostFile.move(image, to: output, replace: replace)
            let facts = HostFile.facts(output)
            progress(FetchProgress(step: .finish, fraction: 1))
            return Disk(
                name: name, path: output, size: facts?.size ?? 0, allocated: facts?.allocated ?? 0, contents: contents)
        } catch where isCancelled() {
            throw .interrupted
        } catch let error as HostFileError {
            throw error.code == EEXIST ? .exists(path: error.path) : .cache(error.description)
        } catch let error as ImageError {
            throw error
        } catch {
            throw .cache("the disk cannot be made: \(error)")
        }
    }

    /// Removes every disk of the store. A guest that runs keeps the one it has open.
    /// - Returns: bytes freed.
    public func pruneDisks() throws(ImageError) -> UInt64 {
        guard HostFile.facts(diskDirectory) != nil else { return 0 }
        let lock = try Lock(cacheDirectory + "/lock") {}
        defer { lock.unlock() }
        let before = HostFile.totalSize(diskDirectory)
        do { try HostFile.remove(diskDirectory) } catch { throw .cache(error.description) }
        return before
    }

    /// Sees that a file can be made, by making it under its preliminary name.
    private static func check(_ path: String) throws(ImageError) {
        if let facts = HostFile.facts(path), !facts.isRegular {
            throw .output(path: path, errno: facts.isDirectory ? EISDIR : EEXIST)
        }
        let name = partial(path)
        do { try HostFile.create(name, with: []) } catch { throw .output(path: path, errno: error.code) }
        unsafe _ = unlink(name)
    }

    /// Where a file is made before it gets its name.
    private static func partial(_ path: String) -> String {
        let slash = path.lastIndex(of: "/").map { path.index(after: $0) } ?? path.startIndex
        return "\(path[..<slash]).\(path[slash...]).\(getpid())"
    }
}
