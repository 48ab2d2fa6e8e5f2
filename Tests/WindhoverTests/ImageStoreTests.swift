import Glibc
import Synchronization
import Testing

@testable import Windhover

/// Stand-ins for the package manager's programs, so that fetching is tested anywhere and every failure can be had.
struct FakePackageManager {
    let directory = TemporaryDirectory()
    var tools: String { directory.path + "/" }

    /// - Parameters:
    ///   - offered: whether the lists have the packages.
    ///   - content: of the archive the download brings; the announced hash is of "archive".
    ///   - downloads: whether the download succeeds.
    ///   - pause: seconds, as sleep takes them, that getting the lists takes.
    init(offered: Bool = true, content: String = "archive", downloads: Bool = true, pause: String = "0") {
        directory.file(
            "apt-get",
            """
            #!/bin/sh
            for word; do last=$word; done
            case "$*" in
                *indextargets*) echo "Debian|http://h/debian/|testing|testing|main" ;;
                *update*)
                    echo "dlstatus:1:50:x" >&3
                    \(offered ? "" : "echo 'W: Failed to fetch http://h/InRelease  Could not resolve' >&2")
                    sleep \(pause) ;;
                *--print-uris*)
                    hash=$(printf archive | sha256sum | cut -c-64)
                    echo "'http://h/${last}_1_amd64.deb' ${last}_1%3a2_amd64.deb 7 SHA256:$hash" ;;
                *download*)
                    echo run >> \(directory.path)/downloads
                    \(downloads ? "" : "echo 'E: Failed to fetch http://h/x.deb  404 Not Found' >&2; exit 100")
                    for word; do
                        case $word in *=*:*) printf '%s' '\(content)' > "${word%%=*}_1%3a2_amd64.deb" ;; esac
                    done ;;
            esac

            """, mode: 0o755)
        directory.file(
            "apt-cache",
            offered
                ? "#!/bin/sh\necho 'Depends: linux-image-9.9-test-amd64 (= 1:2)'\n"
                : "#!/bin/sh\necho 'E: No packages found' >&2; exit 100\n", mode: 0o755)
        directory.file(
            "dpkg-deb",
            """
            #!/bin/sh
            mkdir -p "$3/boot" "$3/bin" "$3/ro"
            echo kernel > "$3/boot/vmlinuz-9.9-test-amd64"
            printf '#!/bin/sh\\necho bin/sh\\n' > "$3/bin/busybox"
            chmod 755 "$3/bin/busybox"
            chmod 500 "$3/ro"

            """, mode: 0o755)
    }

    var downloads: Int {
        ((try? HostFile.contents(of: directory.path + "/downloads", limit: 1000)) ?? []).count { $0 == 10 }
    }
}

@Suite(.timeLimit(.minutes(1))) final class ImageStoreTests {
    let directory = TemporaryDirectory()
    /// A stand-in's programs last as long as it does.
    var managers: [FakePackageManager] = []

    func store(_ manager: FakePackageManager, in name: String = "cache dir's") -> ImageStore {
        managers.append(manager)
        var store = ImageStore(cacheDirectory: "\(directory.path)/\(name)")
        store.tools = manager.tools
        return store
    }

    @Test func theCacheDirectory() throws {
        #expect(try ImageStore.cacheDirectory(cacheHome: "/x", home: "/h") == "/x/windhover")
        #expect(try ImageStore.cacheDirectory(cacheHome: nil, home: "/h") == "/h/.cache/windhover")
        #expect(try ImageStore.cacheDirectory(cacheHome: "", home: "/h") == "/h/.cache/windhover")
        #expect(try ImageStore.cacheDirectory(cacheHome: "relative", home: "/h") == "/h/.cache/windhover")
        let error = failure { () throws(ImageError) in try ImageStore.cacheDirectory(cacheHome: nil, home: nil) }
        #expect(error == .noCacheDirectory)
    }

    @Test func anEmptyStore() throws {
        let store = ImageStore(cacheDirectory: directory.path + "/nothing")
        #expect(store.locate("linux") == nil)
        #expect(store.list().isEmpty)
        #expect(store.size == 0)
        #expect(try store.prune() == 0)
        #expect(HostFile.facts(store.cacheDirectory) == nil)
    }

    @Test func fetchFindVerifyPrune() throws {
        let manager = FakePackageManager()
        let store = store(manager)
        var fractions: [Double] = []
        let image = try store.fetch("linux", progress: { fractions.append($0.fraction) })
        #expect(image.release == "9.9-test-amd64")
        #expect(image.version == "1:2")
        #expect(image.origin == "http://h/linux-image-9.9-test-amd64_1_amd64.deb")
        #expect(fractions == fractions.sorted())
        #expect(fractions.first == 0 && fractions.last == 1)
        #expect(fractions.contains { $0 > 0.1 && $0 < 0.3 })

        #expect(store.locate("linux") == image.files)
        #expect(store.list() == [image])
        #expect(try HostFile.contents(of: image.files.kernel, limit: 100) == Array("kernel\n".utf8))
        #expect(try CPIOReader(HostFile.contents(of: image.files.initrd, limit: 1 << 20))["bin/sh"] != nil)
        #expect(HostFile.names(in: store.cacheDirectory + "/tmp").isEmpty)
        #expect(try store.verify("linux").isEmpty)

        // It is there: nothing is run again, even where nothing could be.
        var offline = store
        offline.tools = "/nonexistent/"
        #expect(try offline.fetch("linux") == image)
        #expect(manager.downloads == 1)
        #expect(try store.fetch("linux", update: true) == image)
        #expect(manager.downloads == 2)

        #expect(try store.prune() >= image.size)
        #expect(store.locate("linux") == nil)
        #expect(store.list().isEmpty)
    }

    @Test func damageIsSeen() throws {
        let store = store(FakePackageManager())
        let image = try store.fetch("linux")
        let stream = try #require(fopen(image.files.kernel, "r+"))
        fputs("KERNEL", stream)
        fclose(stream)
        #expect(try store.verify("linux") == ["vmlinuz"])
        truncate(image.files.kernel, 3)
        #expect(try store.verify("linux") == ["vmlinuz"])
        #expect(store.image("linux") == nil)
        #expect(try store.fetch("linux") == image)
        #expect(try store.verify("linux").isEmpty)
        truncate(image.files.kernel, 0)
        #expect(store.locate("linux") == nil)
    }

    @Test(arguments: ["", "{", "[]", "{\"format\": 99}", "\0\0\0"])
    func aManifestThatMakesNoSense(text: String) throws {
        let store = store(FakePackageManager())
        let image = try store.fetch("linux")
        let path = store.directory(of: "linux") + "/manifest.json"
        try HostFile.remove(path)
        try HostFile.create(path, with: Array(text.utf8))
        #expect(store.image("linux") == nil)
        #expect(try store.fetch("linux") == image)
    }

    @Test func whatTheSourcesLack() throws {
        let store = store(FakePackageManager(offered: false))
        let error = try #require(failure { () throws(ImageError) in try store.fetch("linux") })
        #expect(error.exitStatus == .unavailable)
        #expect(error.description.contains("Could not resolve"))
        #expect(error.description.contains("--kernel"))
        #expect(!error.description.contains("\n"))
        #expect(store.size == 0)
        #expect(HostFile.names(in: store.cacheDirectory + "/tmp").isEmpty)
    }

    @Test func aFetchThatIsCalledOff() throws {
        let manager = FakePackageManager()
        let store = store(manager)
        var isCancelled = false
        let error = failure { () throws(ImageError) in
            try store.fetch("linux", isCancelled: { isCancelled }) { if $0.step == .download { isCancelled = true } }
        }
        #expect(error == .interrupted)
        #expect(store.size == 0)
        #expect(store.locate("linux") == nil)
    }

    @Test func aDownloadThatFails() throws {
        let store = store(FakePackageManager(downloads: false))
        let error = try #require(failure { () throws(ImageError) in try store.fetch("linux") })
        #expect(error.description.contains("404"))
        #expect(store.size == 0)
    }

    @Test func aDownloadThatIsNotWhatWasAnnounced() throws {
        let store = store(FakePackageManager(content: "evil"))
        let error = try #require(failure { () throws(ImageError) in try store.fetch("linux") })
        guard case .damaged = error else {
            Issue.record("\(error)")
            return
        }
        #expect(store.locate("linux") == nil)
        #expect(store.size == 0)
    }

    @Test func aHostWithoutAPackageManager() throws {
        var store = store(FakePackageManager())
        store.tools = "/nonexistent/"
        let error = try #require(failure { () throws(ImageError) in try store.fetch("linux") })
        #expect(error == .hostLacks(program: "/nonexistent/apt-get"))
        #expect(error.exitStatus == .unavailable)
        #expect(error.description.contains("--kernel"))
    }

    @Test func anUnknownName() throws {
        let store = store(FakePackageManager())
        let error = try #require(failure { () throws(ImageError) in try store.fetch("../linux") })
        #expect(error == .unknown("../linux"))
        #expect(error.exitStatus == .noSuchFile)
        #expect(store.locate("../linux") == nil)
    }

    @Test func leftoversOfAKilledFetchGo() throws {
        let store = store(FakePackageManager())
        try HostFile.makeDirectory(store.cacheDirectory + "/tmp/99999/image")
        try HostFile.create(store.cacheDirectory + "/tmp/99999/image/vmlinuz", with: [1, 2, 3])
        _ = try store.fetch("linux")
        #expect(HostFile.names(in: store.cacheDirectory + "/tmp").isEmpty)
    }

    @Test func aCacheThatCannotBeWritten() throws {
        let file = directory.file("file", "x")
        let error = try #require(
            failure { () throws(ImageError) in try ImageStore(cacheDirectory: file + "/windhover").fetch("linux") })
        guard case .cache(let text) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(text.contains(file))
    }

    /// Two processes are two open lock files; two threads of one process are, too.
    @Test func twoFetchesAtOnceDownloadOnce() throws {
        let manager = FakePackageManager(pause: "0.5")
        let store = store(manager)
        let waited = Atomic(0)
        let images = Mutex<[Image]>([])
        // Distinct work directories are per process, so the second must not start before it has the lock.
        withThreads(2) {
            if let image = try? store.fetch("linux", progress: { if $0.step == .waiting { waited.add(1, ordering: .relaxed) } }) {
                images.withLock { $0.append(image) }
            }
        }
        #expect(images.withLock { $0.count } == 2)
        #expect(waited.load(ordering: .relaxed) <= 1)
        #expect(manager.downloads == 1)
    }

    /// Runs a body on `count` threads and waits for all.
    func withThreads(_ count: Int, _ body: @escaping @Sendable () -> Void) {
        final class Box: Sendable {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var threads: [pthread_t] = []
        for _ in 0..<count {
            var thread = pthread_t()
            pthread_create(
                &thread, nil,
                {
                    Unmanaged<Box>.fromOpaque($0!).takeRetainedValue().body()
                    return nil
                }, Unmanaged.passRetained(Box(body)).toOpaque())
            threads.append(thread)
        }
        for thread in threads { pthread_join(thread, nil) }
    }
}
