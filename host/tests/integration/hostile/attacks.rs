//! Every attack that is tried, by its number in the checklist this host was built along.

use std::collections::BTreeSet;

use crate::hostile::promises::Tests;

/// The number of an item, what is tried, and the test that tries it.
#[rustfmt::skip]
const ATTACKS: &[(u8, &str, &str)] = &[
    (1, "`..`, absolute paths, other systems' spellings, encoded dots, the kernel's own names", "no_spelling_of_a_path_leads_out"),
    (1, "the host's settings read by a guest", "a_guest_sees_what_it_was_given_and_nothing_else"),
    (1, "changes outside, also with every approval", "files_outside_are_not_changed_even_with_yolo"),
    (2, "links to files and folders, chains, `/proc` links, with a slash at the end", "links_lead_nowhere_with_a_slash_or_without"),
    (2, "changes through links, loops of links", "links_are_followed_inside_and_refused_outside"),
    (3, "a folder exchanged for a link thousands of times while files are written and read", "a_folder_that_keeps_becoming_a_link_leads_nowhere"),
    (3, "a link in the place of the workspace itself", "a_command_cannot_move_the_workspace_elsewhere"),
    (3, "links in any part of a path the host opens", "a_link_anywhere_in_the_path_is_not_followed"),
    (4, "hard links, renames and every other change of what is only to be read", "what_is_only_to_be_read_is_changed_in_no_way"),
    (4, "a read-only workspace changed by tools and commands", "a_read_only_wall_holds_for_tools_and_commands"),
    (5, "pipes, sockets and devices as targets, plugins and folders", "pipes_sockets_and_devices_hold_nothing_up"),
    (5, "a pipe read by a guest", "a_guest_that_hangs_in_the_kernel_costs_one_call"),
    (5, "pipes as instructions and settings of a project", "what_is_no_small_regular_file_neither_counts_nor_hangs"),
    (5, "a pipe, a large file or foreign bytes as the policy", "pipes_large_files_and_foreign_bytes_end_at_once"),
    (6, "settings, state, plugins or what is above them added as a folder", "our_own_folders_are_given_to_nobody"),
    (6, "settings inside the folder that is worked in", "folders_that_are_obeyed_are_not_put_into_the_one_that_is_worked_in"),
    (6, "the home as workspace", "the_home_is_no_workspace"),
    (7, "sealed names in other letter cases", "sealed_names"),
    (8, "`/tmp` and `/data` filled with bytes and with files", "a_guest_fills_its_folders_to_the_quota_and_no_further"),
    (8, "undo filled by changes", "a_session_keeps_so_much_and_says_what_it_does_not_keep"),
    (8, "values filled to the brim", "versions_sizes_and_lifetimes_are_kept"),
    (8, "endless output of a command", "endless_output_does_not_fill_the_disk"),
    (9, "a name that is public first and private then", "a_name_is_resolved_once_and_leads_nowhere_private"),
    (9, "a name with one private address among public ones", "a_name_leads_to_public_addresses_and_to_those_that_are_granted_themselves"),
    (9, "`localhost` of a name server", "localhost_is_this_machine_and_needs_a_grant_that_says_so"),
    (10, "redirects to private addresses in all disguises, to files, in chains and circles", "a_server_leads_a_component_nowhere_else"),
    (10, "headers, body and method taken along to another origin", "another_origin_gets_neither_the_callers_headers_nor_its_body"),
    (10, "redirects that leave TLS", "what_was_encrypted_stays_encrypted"),
    (10, "a credential on a redirect", "it_is_dropped_when_a_redirect_leaves_the_audience"),
    (11, "proxies in the environment", "a_proxy_of_the_environment_counts_only_if_settings_say_so"),
    (11, "a plugin behind a proxy, decided on before it", "a_plugin_goes_through_it_only_if_settings_say_so_and_is_decided_on_first"),
    (12, "mapped, translated and numeric spellings of private addresses", "disguises_of_addresses_that_are_not_public"),
    (12, "the same, connected to", "addresses_in_disguise_are_refused_before_anything_is_connected"),
    (13, "metadata services under a broad grant", "metadata_services_are_reached_by_their_own_name_only"),
    (14, "user info, empty hosts, line ends and look-alikes in a URL", "what_cannot_be_decided_is_refused"),
    (14, "generated URLs on which parser and client could differ", "an_origin_is_what_the_client_is_given"),
    (14, "upper case, dots at the end, default ports", "spellings_of_one_origin_are_one"),
    (15, "each header of the host's, line ends, zero bytes, a second request in a value", "headers_of_the_host_and_smuggled_ones_are_refused_one_by_one"),
    (15, "a component that brings another HTTP import", "what_the_host_does_not_offer_is_not_imported"),
    (16, "another authority than the one that was decided on", "the_host_header_is_the_origin_that_was_decided_on"),
    (16, "a mirror asked for under its own name", "grants_name_the_origin_and_redirects_on_the_mirror_stay_with_it"),
    (17, "packed answers that grow a thousandfold", "bombs_do_not_go_off"),
    (17, "a packed answer nobody asked for", "what_was_not_asked_for_is_handed_on_as_it_came"),
    (17, "a body without end", "a_body_is_no_larger_than_allowed"),
    (18, "a server that drips", "a_server_that_only_drips_is_given_up"),
    (18, "a server that waits in every phase", "all_waits_together_have_a_limit"),
    (19, "TCP, UDP, listening and name lookup by a guest", "a_component_has_no_sockets_and_asks_no_name_server"),
    (20, "a thousand requests at a time", "a_thousand_requests_wait_for_their_turn_and_a_call_has_its_share"),
    (20, "a plugin on another's connection", "a_connection_is_used_again_by_its_own_plugin_only"),
    (21, "a hundred thousand headers, one of megabytes, cookies", "an_answer_has_no_cookies_and_no_flood_of_headers"),
    (21, "headers without end, at the way out", "an_answer_has_no_more_headers_than_anyone_needs"),
    (22, "a credential for another origin, another plugin, a sibling name", "what_a_plugin_tries_with_a_credential_is_refused"),
    (22, "an audience compared by its beginning", "an_audience_is_compared_whole"),
    (22, "a secret that a plugin got hold of, sent on", "a_plugin_that_has_a_secret_cannot_send_it"),
    (23, "a server that echoes a credential in every form and in pieces", "what_a_server_reflects_comes_back_without_the_value_in_any_form_and_any_pieces"),
    (23, "a redirect that carries the value", "a_redirect_that_carries_the_value_elsewhere_is_not_followed"),
    (23, "the value in files, events and records", "a_session_puts_each_use_on_record_and_keeps_no_value"),
    (24, "secrets in a URL that cannot be requested", "what_is_no_url_is_on_record_without_its_secrets"),
    (24, "keys in errors of a provider", "keys_and_long_messages_do_not_get_out"),
    (24, "keys in broken settings", "keys_in_the_clear_are_refused_and_not_repeated"),
    (25, "ordinary text that looks like a secret", "ordinary_text_stays_as_it_is"),
    (25, "ordinary text in a stream", "text_without_secrets_stays_byte_for_byte"),
    (26, "the environment and arguments of a guest", "a_guest_sees_what_it_was_given_and_nothing_else"),
    (26, "the host's own environment", "secrets_of_the_environment_are_in_no_file_and_no_request_but_their_own"),
    (26, "the host's memory, command line and environment block", "the_process_shows_nothing_of_what_it_holds"),
    (27, "escapes, titles, clipboards and turned text of a guest", "what_a_guest_writes_reaches_the_model_and_people_without_what_acts"),
    (27, "the same of models, files and servers", "what_anybody_writes_does_not_act_on_the_terminal"),
    (27, "the same in pieces", "nothing_the_model_says_acts_even_if_it_comes_in_pieces"),
    (27, "ten thousand combining marks", "ten_thousand_marks_are_ten"),
    (27, "escapes in what a guest answers and panics with", "what_acts_on_a_terminal_does_not_reach_it"),
    (28, "a record of several lines, forged in a command and in a log message", "a_forged_record_of_several_lines_is_part_of_one"),
    (28, "lines of a listing, forged", "lists_have_one_line_for_each_thing"),
    (28, "a log message that acts", "what_a_guest_logs_is_cut_and_acts_on_nothing"),
    (29, "an answer of megabytes", "floods_are_bounded"),
    (29, "a page that says it is an image", "bytes_of_an_answer_are_named_and_not_shown"),
    (30, "megabytes on stdout and stderr of a guest", "floods_are_bounded"),
    (30, "control characters in a stream of JSON", "no_control_character_is_in_a_line"),
    (31, "a description that changes", "a_plugin_that_describes_itself_differently_waits_for_a_person"),
    (31, "a changed plugin under another file name", "a_changed_plugin_is_not_let_in_under_another_file_name"),
    (31, "a schema that hides instructions", "a_schema_hides_nothing"),
    (32, "approvals, calls and directives in a result", "what_a_result_says_is_no_directive_of_the_host"),
    (32, "a project's instructions that close their fence", "a_projects_instructions_stand_in_a_fence_they_cannot_close"),
    (33, "look-alike, reserved, prefixed and impossible names", "names_that_pretend_are_refused"),
    (33, "a tool called `bash` of another plugin", "a_tool_of_another_name_takes_no_call_of_bash"),
    (33, "two plugins of one name", "doubled_names_and_unreadable_folders_are_named"),
    (34, "a model that installs, grants, edits the policy and approves", "a_model_cannot_widen_its_own_access"),
    (34, "a model that gives trust", "the_model_cannot_give_trust"),
    (34, "a model that writes what a later run obeys", "what_a_run_writes_is_no_instruction_of_the_next_one"),
    (34, "a repository that ships settings, plugins and instructions", "a_hostile_repository_has_no_effect_and_is_named"),
    (34, "sealed paths", "sealed_paths_need_a_person"),
    (35, "a tool that says it only looks, in a plugin that may write", "a_tool_that_only_looks_changes_nothing_whatever_its_plugin_was_granted"),
    (35, "an import that would call another plugin", "what_the_host_does_not_offer_is_not_imported"),
    (36, "arguments in another order, or other arguments, under an old approval", "the_order_of_fields_changes_nothing"),
    (36, "an approval for the session, used for something else", "an_allow_for_the_session_counts_where_nothing_else_has_to_be_asked"),
    (37, "what hides on a card", "what_hides_is_written_out_and_what_is_cut_is_counted"),
    (37, "texts of a manifest that pass for the host's lines", "texts_are_one_line"),
    (37, "an answer by a key that was pressed before", "a_chat_shows_what_it_would_trust_and_enter_means_not_now"),
    (38, "questions in CI", "a_run_in_ci_asks_nobody_and_changes_nothing"),
    (38, "every mode without a terminal", "modes_decide_by_tier"),
    (39, "loops in the start function, in `describe` and behind it", "loops_before_any_call_end"),
    (39, "loops in the allocation for a call and behind it", "loops_around_a_call_end"),
    (40, "a guest that sleeps for an hour", "every_trick_is_one_failed_result"),
    (40, "guests that hang beside others", "tricks_at_the_same_time_do_not_hold_each_other_up"),
    (41, "thirty memories, ten million table entries, two hundred instances at the beginning", "what_is_too_large_at_the_beginning_is_left_out"),
    (41, "memory and a table that grow without end", "what_grows_ends_at_its_limit"),
    (41, "memory without end", "every_trick_is_one_failed_result"),
    (42, "forty megabytes handed to the host", "every_trick_is_one_failed_result"),
    (42, "files that are never closed", "files_that_are_never_closed_cost_one_call"),
    (42, "impossible lengths and values in a host call", "host_calls_with_impossible_values_cost_one_call"),
    (43, "the whole memory filled again and again", "loops_around_a_call_end"),
    (44, "answers that lie in every field", "an_answer_that_lies_costs_one_call"),
    (44, "an allocation outside of the guest's memory", "arguments_are_written_nowhere_else"),
    (44, "recursion", "every_trick_is_one_failed_result"),
    (45, "functions, types and blocks without end", "what_an_honest_component_does_not_have_is_refused_uncompiled"),
    (45, "a component that takes a compiler minutes", "a_compile_bomb_costs_one_refused_plugin"),
    (45, "a component larger than any", "what_is_wrong_with_one_plugin_is_told_and_the_others_work"),
    (46, "each limit met, each told by its own words", "every_trick_is_one_failed_result"),
    (46, "requests, counted for a call", "a_thousand_requests_wait_for_their_turn_and_a_call_has_its_share"),
    (47, "a plugin that crashes again and again", "a_plugin_that_keeps_crashing_is_suspended_and_the_others_are_not"),
    (48, "state of a call that trapped", "nothing_of_one_call_is_left_for_the_next"),
    (49, "canary bytes, globals and tables of the call before and of another plugin", "nothing_of_one_call_is_left_for_the_next"),
    (51, "a file exchanged between check and use", "a_file_that_changes_after_it_was_checked_is_not_run"),
    (51, "a file that is exchanged all the time", "a_file_that_keeps_changing_is_run_as_it_was_described_or_not_at_all"),
    (51, "a project's component, exchanged after it was trusted", "a_component_of_a_project_is_looked_at_only_as_it_was_trusted"),
    (52, "two manifests in one component", "two_manifests_are_none"),
    (53, "kept code that was cut, flipped, exchanged, linked or given to another user", "kept_code_is_used_only_as_it_was_written_and_by_whom"),
    (53, "machine code as a plugin", "machine_code_is_no_plugin"),
    (55, "an older version of a plugin, installed or put there by hand", "an_upgrade_shows_what_is_different_and_a_downgrade_is_refused"),
    (56, "a grant that declares more than it was given", "nothing_is_given_that_is_not_both_declared_and_granted"),
    (58, "a policy that others could write", "a_policy_that_someone_else_could_have_written_keeps_the_program_from_starting"),
    (58, "a policy with mistakes", "what_is_wrong_is_told_with_line_and_column"),
    (58, "flags and settings that loosen it", "flags_and_settings_cannot_loosen_what_is_fixed"),
    (58, "a project that loosens the user's settings", "a_trusted_project_sets_harmless_keys_and_gives_credentials"),
    (59, "a full disk under the records", "on_a_full_disk_nothing_runs_unrecorded"),
    (59, "no place for records", "without_a_record_nothing_runs"),
    (59, "a changed record, a chain made anew", "a_changed_record_is_named_and_the_head_is_gone"),
    (59, "every byte of a chain, changed", "every_changed_byte_is_noticed"),
    (60, "variables that load code or name sockets and tokens", "variables_that_load_or_name_something_are_refused"),
    (60, "arguments with a shell's signs", "arguments_are_handed_over_as_they_are"),
    (60, "programs in folders of the workspace, first on the path", "a_folder_of_the_path_that_became_a_link_opens_nothing"),
    (60, "a hostile environment of the user", "a_hostile_environment_opens_nothing_else"),
    (61, "fork bombs", "the_session_outruns_fork_bombs"),
    (61, "daemons in sessions of their own", "the_session_ends_its_daemons"),
    (61, "descriptors of the host", "only_standard_descriptors_are_inherited"),
    (61, "processes that ignore their end", "what_ignores_a_timeout_is_killed"),
    (61, "terminals", "terminal_input_cannot_be_pushed"),
    (62, "the network from a command", "nothing_is_connected_to_when_the_network_is_off"),
    (62, "files outside, from a command", "files_outside_are_neither_read_nor_written"),
    (62, "system calls, namespaces, mounts", "every_forbidden_act_is_refused"),
    (62, "the processes that keep the wall", "the_guard_is_out_of_reach"),
    (62, "a machine without a wall", "without_a_wall_commands_are_asked_for_or_refused"),
    (63, "escapes in the output of a command", "colours_titles_and_moves_are_removed"),
    (63, "output that is no text", "binary_output_is_kept_as_it_is"),
    (64, "a command behind an allowed one", "a_rule_that_allows_a_command_stops_where_another_begins"),
    (64, "options that run something, in an allowed command", "rules_name_tools_targets_arguments_paths_and_tiers"),
];

/// Numbers without an attack, and why.
const EXCEPTIONS: &[(u8, &str)] = &[
    (50, "known holes of the engine: a gate in CI (`deny.toml`), no attack"),
    (54, "archives: none are unpacked, a plugin is one file"),
    (57, "names of several registries: there is no registry"),
];

const ITEMS: u8 = 64;

#[test]
fn every_attack_is_tried_by_a_test_that_exists() {
    let tests = Tests::of_the_sources();
    let missing: Vec<_> = ATTACKS.iter().filter(|(_, _, test)| !tests.names.contains(*test)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let distinct: BTreeSet<&str> = ATTACKS.iter().map(|(_, _, test)| *test).collect();
    assert!(
        ATTACKS.len() >= 60 && distinct.len() >= 60,
        "{} attacks by {} tests",
        ATTACKS.len(),
        distinct.len()
    );
}

#[test]
fn every_item_is_covered_or_says_why_not() {
    let covered: BTreeSet<u8> = ATTACKS.iter().map(|(number, ..)| *number).collect();
    let excepted: BTreeSet<u8> = EXCEPTIONS.iter().map(|(number, _)| *number).collect();
    let open: Vec<u8> = (1..=ITEMS).filter(|n| !covered.contains(n) && !excepted.contains(n)).collect();
    assert!(open.is_empty(), "nothing tries {open:?}");
    assert!(
        covered.is_disjoint(&excepted),
        "an exception that is none: {:?}",
        covered.intersection(&excepted)
    );
    assert!(covered.union(&excepted).all(|number| (1..=ITEMS).contains(number)));
    assert!(EXCEPTIONS.iter().all(|(_, why)| !why.is_empty()));
}
