#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A bootable image in the store: paths and what they came from.
public struct Image: Hashable, Sendable {
    /// "linux".
    public let name: String
    /// The kernel's release, such as `6.1.0-40-cloud-amd64`.
    public let release: String
    /// The version of the kernel's package.
    public let version: String
    /// Where the kernel came from: a package's address.
    public let origin: String
    /// Its files.
    public let files: ImageFiles
    /// Bytes on disk, all files together.
    public let size: UInt64
}

/// The paths of an image's files.
public struct ImageFiles: Hashable, Sendable {
    /// The kernel as its package holds it.
    public let kernel: String
    /// The kernel in the form that starts fastest; nil where that could not be made.
    public let preparedKernel: String?
    /// The small root file system.
    public let initrd: String
    /// Drivers for virtio devices, an archive to unpack over the small root; nil for a kernel that has them built in.
    public let modules: String?

    public init(kernel: String, preparedKernel: String? = nil, initrd: String, modules: String? = nil) {
        self.kernel = kernel
        self.preparedKernel = preparedKernel
        self.initrd = initrd
        self.modules = modules
    }
}

/// How far a fetch is.
public struct FetchProgress: Hashable, Sendable {
    public enum Step: String, Hashable, Sendable, CaseIterable {
        case waiting = "waiting for another hover to finish"
        case lists = "reading package lists"
        case download = "downloading"
        case unpack = "unpacking"
        case install = "installing packages"
        case fileSystem = "making the file system"
        case prepare = "preparing the kernel"
        case finish = "storing"
    }

    public let step: Step
    /// Of the whole fetch, from 0 to 1.
    public let fraction: Double
}

/// The images that this user has fetched.
///
/// An image is a directory under `images` and the format's number, put there by one rename when it is complete, so
/// that one that is there is whole; a crash leaves only what the next fetch or prune clears away. Fetches wait for
/// each other at a lock on the file `lock`. Finding an image takes no lock and reads no file.
public struct ImageStore: Sendable {
    /// Without a slash at its end.
    public let cacheDirectory: String
    /// Where the package manager's programs are, with a slash at its end; empty for PATH. Tests bring their own.
    var tools = ""

    /// Names that `fetch` knows.
    public static let names = RunConfiguration.imageNames

    static let kernelFile = "vmlinuz"
    static let preparedKernelFile = "kernel.prepared"
    static let initrdFile = "initrd.cpio"
    static let modulesFile = "modules.cpio"
    static let manifestFile = "manifest.json"

    public init(cacheDirectory: String) { self.cacheDirectory = cacheDirectory }

    /// The store in `$XDG_CACHE_HOME/windhover`, or `~/.cache/windhover`. Source: [XDG-BASEDIR].
    /// - Throws: `ImageError.noCacheDirectory`.
    public init() throws(ImageError) {
        func variable(_ name: String) -> String? {
            guard let value = unsafe getenv(name) else { return nil }
            return unsafe String(cString: value)
        }
        cacheDirectory = try Self.cacheDirectory(
            cacheHome: variable("XDG_CACHE_HOME"), home: variable("HOME"))
    }

    /// A relative XDG_CACHE_HOME is to be ignored, says the specification.
    static func cacheDirectory(cacheHome: String?, home: String?) throws(ImageError) -> String {
        if let cacheHome, cacheHome.hasPrefix("/") { return cacheHome + "/windhover" }
        guard let home, home.hasPrefix("/") else { throw .noCacheDirectory }
        return home + "/.cache/windhover"
    }

    var images: String { cacheDirectory + "/images" }
    var temporaries: String { cacheDirectory + "/tmp" }
    /// Images of another format are as good as absent: the files are found without a look at the manifest.
    private var currentImages: String { "\(images)/\(ImageManifest.currentFormat)" }
    func directory(of name: String) -> String { "\(currentImages)/\(name)" }

    /// The files of a fetched image; nil where it is not there. A few `stat` calls: fit for the start of a guest.
    public func locate(_ name: String) -> ImageFiles? {
        guard Self.names.contains(name) else { return nil }
        let directory = directory(of: name)
        func path(_ file: String) -> String? {
            let path = "\(directory)/\(file)"
            guard let facts = HostFile.facts(path), facts.isRegular, facts.size > 0 else { return nil }
            return path
        }
        guard let kernel = path(Self.kernelFile), let initrd = path(Self.initrdFile) else { return nil }
        return ImageFiles(
            kernel: kernel, preparedKernel: path(Self.preparedKernelFile), initrd: initrd, modules: path(Self.modulesFile))
    }

    /// A fetched image with all that is known of it; nil where it is not there or not whole.
    public func image(_ name: String) -> Image? {
        guard let files = locate(name), let manifest = manifest(name) else { return nil }
        let directory = directory(of: name)
        guard manifest.files.allSatisfy({ HostFile.facts("\(directory)/\($0.name)")?.size == $0.size }) else {
            return nil
        }
        return Image(
            name: name, release: manifest.release, version: manifest.version,
            origin: manifest.packages.first?.address ?? "", files: files,
            size: HostFile.totalSize(directory))
    }

    /// Every image that is there and whole, by name.
    public func list() -> [Image] {
        HostFile.names(in: currentImages).compactMap { image($0) }
    }

    /// Images that are there and not whole, by name: a fetch mends them.
    public func damaged() -> [String] {
        HostFile.names(in: currentImages).filter { Self.names.contains($0) && image($0) == nil }
    }

    /// Bytes that the whole cache takes, leftovers too.
    public var size: UInt64 { HostFile.totalSize(cacheDirectory) }

    /// Takes every file's hash again.
    /// - Returns: the names of files that are not what was stored; empty for a good image.
    public func verify(_ name: String) throws(ImageError) -> [String] {
        guard let manifest = manifest(name) else { throw .unknown(name) }
        var damaged: [String] = []
        for file in manifest.files {
            let path = "\(directory(of: name))/\(file.name)"
            if HostFile.facts(path)?.size != file.size {
                damaged.append(file.name)
            } else if try DebianPackages.sha256(path) != file.sha256 {
                damaged.append(file.name)
            }
        }
        return damaged
    }

    /// Makes sure that an image is there.
    ///
    /// - Parameters:
    ///   - update: fetch it anew even where it is there.
    ///   - isCancelled: asked between steps, and after a failure; true ends the fetch as `interrupted`.
    ///   - progress: called on this thread, now and then.
    /// - Returns: the image. Where another process fetches it at this moment, that one's.
    /// - Throws: `ImageError`; the store is then as it was.
    /// - Side effects: runs the host's package manager on a state of its own, as this user.
    public func fetch(
        _ name: String, update: Bool = false, isCancelled: @escaping () -> Bool = { false },
        progress: @escaping (FetchProgress) -> Void = { _ in }
    ) throws(ImageError) -> Image {
        guard Self.names.contains(name) else { throw .unknown(name) }
        if !update, let image = image(name) { return image }
        do {
            try HostFile.makeDirectory(currentImages)
            try HostFile.makeDirectory(temporaries)
        } catch {
            throw .cache("\(error); images are kept there unless XDG_CACHE_HOME names another directory")
        }
        let before = HostFile.facts(directory(of: name))?.inode
        let lock = try Lock(cacheDirectory + "/lock") { progress(FetchProgress(step: .waiting, fraction: 0)) }
        defer { lock.unlock() }
        // Another process may have fetched it while this one waited.
        let isNew = HostFile.facts(directory(of: name))?.inode != before
        if !update || isNew, let image = image(name) { return image }

        removeLeftovers()
        let work = "\(temporaries)/\(getpid())"
        defer { try? HostFile.remove(work) }
        do {
            try HostFile.makeDirectory(work)
            try LinuxImage(work: work, tools: tools, isCancelled: isCancelled, progress: progress).make(into: work + "/image")
            try HostFile.synchronize(work + "/image")
            try HostFile.replace(directory(of: name), with: work + "/image")
            try HostFile.synchronize(currentImages)
        } catch where isCancelled() {
            throw .interrupted
        } catch let error as HostFileError {
            throw .cache(error.description)
        } catch let error as ImageError {
            throw error
        } catch {
            throw .cache("the image cannot be stored: \(error)")
        }
        guard let image = image(name) else { throw .damaged("the image \(name) was stored and is not whole") }
        // Images in a form of earlier versions, which nothing reads any more.
        for form in HostFile.names(in: images) where "\(images)/\(form)" != currentImages { try? HostFile.remove("\(images)/\(form)") }
        return image
    }

    /// Removes every image and leftover, and no disk. A guest that runs keeps the files it has open.
    /// - Returns: bytes freed.
    public func prune() throws(ImageError) -> UInt64 {
        guard HostFile.facts(cacheDirectory) != nil else { return 0 }
        let lock = try Lock(cacheDirectory + "/lock") {}
        defer { lock.unlock() }
        let before = size
        do {
            try HostFile.remove(images)
            removeLeftovers()
            try HostFile.remove(temporaries)
        } catch { throw .cache(error.description) }
        return before - min(before, size)
    }

    private func manifest(_ name: String) -> ImageManifest? {
        guard let bytes = try? HostFile.contents(of: "\(directory(of: name))/\(Self.manifestFile)", limit: 1 << 20) else {
            return nil
        }
        return ImageManifest(bytes)
    }

    /// What fetches that were killed left. Only under the lock.
    func removeLeftovers() {
        for name in HostFile.names(in: temporaries) { Namespace.removeTree("\(temporaries)/\(name)") }
    }

    /// An exclusive lock between processes; it ends with the process at the latest.
    final class Lock {
        private let descriptor: Int32
        /// Whether somebody else held it.
        let waited: Bool

        init(_ path: String, whenHeld: () -> Void) throws(ImageError) {
            let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            guard descriptor >= 0 else { throw .cache(HostFileError("open", path).description) }
            self.descriptor = descriptor
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 {
                waited = false
                return
            }
            waited = true
            whenHeld()
            while flock(descriptor, LOCK_EX) != 0 {
                let failure = HostFileError("lock", path)
                close(descriptor)
                // A caller that means Ctrl-C to end the wait has a handler that does not restart calls.
                throw failure.code == EINTR ? .interrupted : .cache(failure.description)
            }
        }

        func unlock() { close(descriptor) }
    }
}
