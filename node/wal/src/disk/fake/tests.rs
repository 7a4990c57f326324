use super::*;

fn write(file: &dyn DiskFile, offset: u64, bytes: &[u8]) {
    file.write_at(offset, &mut [IoSlice::new(bytes)]).unwrap();
}

fn durable_file(disk: &FakeDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(name).unwrap();
    write(&*file, 0, bytes);
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    file
}

#[test]
fn unsynced_bytes_survive_the_process_and_not_the_power() {
    let disk = FakeDisk::new(1);
    let file = durable_file(&disk, "a", &[1; 2000]);
    write(&*file, 1000, &[2; 2000]);
    disk.crash_process();
    assert!(file.read_at(0, &mut [0]).is_err(), "a file of the dead process");
    assert_eq!(disk.bytes("a").unwrap()[1000..], [2; 2000]);
    assert_eq!(disk.durable_view().bytes("a").unwrap(), [1; 2000]);
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let cut = disk.deep_clone();
        cut.power_cut(seed);
        let bytes = cut.bytes("a").unwrap();
        assert_eq!(bytes[..512], [1; 512]);
        for sector in bytes.chunks(512) {
            assert!(sector.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 2);
        }
        seen.insert(bytes);
    }
    assert!(seen.len() > 5, "torn in many ways");
}

#[test]
fn names_are_durable_only_after_the_directory_is_synced() {
    let disk = FakeDisk::new(1);
    durable_file(&disk, "old", b"x");
    disk.create("new").unwrap().sync_data().unwrap();
    disk.rename("old", "moved").unwrap();
    assert_eq!(disk.names(), ["moved", "new"]);
    assert_eq!(disk.durable_view().names(), ["old"]);
    disk.sync_dir().unwrap();
    assert_eq!(disk.durable_view().names(), ["moved", "new"]);
    disk.remove("new").unwrap();
    assert_eq!(disk.durable_view().names(), ["moved", "new"]);
}

#[test]
fn a_failed_sync_loses_pages_that_later_syncs_call_clean() {
    let disk = FakeDisk::new(1);
    let file = durable_file(&disk, "a", &[1; 512]);
    write(&*file, 0, &[2; 512]);
    disk.inject(Refusal {
        operation: Operation::Sync,
        file_prefix: "a".into(),
        skip: 0,
        count: 1,
        error: io::ErrorKind::Other,
    });
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(disk.bytes("a").unwrap(), [2; 512], "still cached");
    assert_eq!(disk.durable_view().bytes("a").unwrap(), [1; 512]);
    write(&*file, 0, &[3; 1]);
    file.sync_data().unwrap();
    assert_eq!(disk.durable_view().bytes("a").unwrap()[..2], [3, 2], "written again, so dirty again");
}

#[test]
fn a_crash_at_a_call_fails_it_and_all_after_it() {
    let disk = FakeDisk::new(3);
    let file = durable_file(&disk, "a", &[1; 512]);
    disk.crash_at_call(2);
    file.read_at(0, &mut [0]).unwrap();
    let error = file.write_at(0, &mut [IoSlice::new(&[9; 512])]).unwrap_err();
    assert!(Crashed::is(&error) && disk.is_crashed());
    assert!(Crashed::is(&disk.list().unwrap_err()));
    disk.crash_process();
    assert_eq!(disk.list().unwrap(), ["a"]);
}

#[test]
fn a_full_disk_refuses_and_keeps_a_part() {
    let disk = FakeDisk::new(1);
    disk.set_capacity(1000);
    let file = disk.create("a").unwrap();
    assert!(crate::disk::is_no_space(&file.allocate(1001).unwrap_err()));
    assert!(crate::disk::is_no_space(&file.write_at(0, &mut [IoSlice::new(&[1; 1500])]).unwrap_err()));
    assert_eq!((disk.used_bytes(), disk.free_bytes().unwrap()), (1000, 0));
    write(&*file, 0, &[2; 1000]);
    disk.remove("a").unwrap();
    assert_eq!(disk.used_bytes(), 1000, "an open file keeps its bytes");
    drop(file);
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn the_length_and_cut_off_bytes_may_come_back() {
    let disk = FakeDisk::new(1);
    let file = durable_file(&disk, "a", &[1; 1500]);
    file.truncate(700).unwrap();
    assert_eq!(disk.bytes("a").unwrap(), [1; 700]);
    assert_eq!(disk.durable_view().bytes("a").unwrap(), [1; 1500]);
    file.sync_data().unwrap();
    assert_eq!(disk.durable_view().bytes("a").unwrap(), [1; 700]);
    file.allocate(4096).unwrap();
    assert_eq!((file.size().unwrap(), disk.bytes("a").unwrap()[700..].to_vec()), (4096, vec![0; 3396]));
}

#[test]
fn locks_end_with_their_holder_or_its_process() {
    let disk = FakeDisk::new(1);
    let held = disk.lock("LOCK").unwrap();
    assert!(held.is_some() && disk.lock("LOCK").unwrap().is_none());
    disk.crash_process();
    let again = disk.lock("LOCK").unwrap();
    drop(held);
    assert!(disk.lock("LOCK").unwrap().is_none(), "a dead holder gives back nothing");
    drop(again);
    assert!(disk.lock("LOCK").unwrap().is_some());
}

#[test]
fn rot_changes_cache_and_medium() {
    let disk = FakeDisk::new(1);
    let file = durable_file(&disk, "a", &[1; 600]);
    write(&*file, 0, &[2; 10]);
    assert!(disk.corrupt("a", 5, 0x10));
    assert_eq!((disk.bytes("a").unwrap()[5], disk.durable_view().bytes("a").unwrap()[5]), (0x12, 0x11));
    assert!(!disk.corrupt("a", 600, 1) && !disk.corrupt("b", 0, 1));
}

#[test]
fn a_misdirected_write_lands_on_the_medium() {
    let disk = FakeDisk::new(1);
    durable_file(&disk, "a", &[1; 1024]);
    assert!(disk.smear("a", 512, &[7; 512]));
    let bytes = disk.durable_view().bytes("a").unwrap();
    assert_eq!((&bytes[..512], &bytes[512..]), (&[1; 512][..], &[7; 512][..]));
    assert!(!disk.smear("a", 513, &[9; 512]) && !disk.smear("b", 0, &[9]));
    assert_eq!(disk.bytes("a").unwrap(), bytes);
}

#[test]
fn rot_on_reading_leaves_the_medium_whole() {
    let disk = FakeDisk::new(1);
    let file = durable_file(&disk, "a", &[0; 64]);
    disk.rot_reads(1);
    let mut buffer = [0; 64];
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(buffer.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!((buffer, disk.bytes("a").unwrap()), ([0; 64], vec![0; 64]));
}

#[test]
fn a_folder_comes_back_from_its_text() {
    let mut random = Random::new(3);
    for _ in 0..200 {
        let mut bytes = Vec::new();
        for _ in 0..random.below(6) {
            let byte = [0, 0, 7, random.next() as u8][random.below(4) as usize];
            let count = [1, 23, 24, 25, 40, 600][random.below(6) as usize];
            bytes.extend(std::iter::repeat_n(byte, count));
        }
        let text = write_folder([("a", bytes.as_slice()), ("b-1", &[])]);
        assert_eq!(read_folder(&text), [("a".to_owned(), bytes.clone()), ("b-1".to_owned(), Vec::new())]);
        assert_eq!(FakeDisk::of_folder(&text).bytes("a"), Some(bytes));
    }
    let text = write_folder([("a", [vec![0; 30], vec![1, 2], vec![9; 30], vec![0; 3]].concat().as_slice())]);
    assert_eq!(text, "file a 65\n 30 0102\n 32 09*30\n");
}
