#!/usr/bin/env escript
%% What the other contenders do, with OTP's own supervisor and gen_server.
-mode(compile).
-behaviour(supervisor).
-export([start_link/1, start_many/0, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

main(["restarts", How, Times, ASupervisor]) ->
    quiet(),
    Took = restarts(list_to_atom(How), list_to_integer(Times), list_to_integer(ASupervisor), []),
    io:format("~s~n", [lists:join(" ", [integer_to_list(T) || T <- Took])]);
main(["crowd", Count]) ->
    quiet(),
    N = list_to_integer(Count),
    {ok, Sup} = supervisor:start_link(?MODULE, {simple_one_for_one, self()}),
    Before = resident(),
    Began = erlang:monotonic_time(nanosecond),
    [{ok, _} = supervisor:start_child(Sup, []) || _ <- lists:seq(1, N)],
    Took = erlang:monotonic_time(nanosecond) - Began,
    timer:sleep(200),
    io:format("~w ~w~n", [Took / N, (resident() - Before) / N]).

%% Reports of crashes, ten thousand times, are not what is measured.
quiet() ->
    logger:set_primary_config(level, none).

restarts(_, 0, _, Took) ->
    lists:reverse(Took);
restarts(How, Times, ASupervisor, Took) ->
    Now = min(Times, ASupervisor),
    process_flag(trap_exit, true),
    {ok, Sup} = supervisor:start_link(?MODULE, {one_for_one, self()}),
    Child = up(),
    More = crashes(How, Now, Child, Took),
    exit(Sup, shutdown),
    receive {'EXIT', Sup, _} -> ok end,
    restarts(How, Times - Now, ASupervisor, More).

crashes(_, 0, _, Took) ->
    Took;
crashes(How, Times, Child, Took) ->
    gen_server:cast(Child, {crash, How}),
    Next = up(),
    ok = gen_server:call(Next, ask),
    Answered = erlang:monotonic_time(nanosecond),
    Stamp = receive {stamp, At} -> At end,
    crashes(How, Times - 1, Next, [Answered - Stamp | Took]).

up() ->
    receive {up, Pid} -> Pid end.

resident() ->
    [_, Pages | _] = string:lexemes(os:cmd("cat /proc/" ++ os:getpid() ++ "/statm"), " "),
    list_to_integer(Pages) * 4096.

start_link(Driver) ->
    gen_server:start_link(?MODULE, {worker, Driver}, []).

start_many() ->
    gen_server:start_link(?MODULE, {worker, none}, []).

init({one_for_one, Driver}) ->
    Flags = #{strategy => one_for_one, intensity => 1000000, period => 1},
    {ok, {Flags, [#{id => worker, start => {?MODULE, start_link, [Driver]}}]}};
init({simple_one_for_one, _}) ->
    Flags = #{strategy => simple_one_for_one, intensity => 1000000, period => 1},
    {ok, {Flags, [#{id => worker, start => {?MODULE, start_many, []}}]}};
init({worker, none}) ->
    {ok, none};
init({worker, Driver}) ->
    Driver ! {up, self()},
    {ok, Driver}.

handle_call(ask, _, Driver) ->
    {reply, ok, Driver}.

handle_cast({crash, How}, Driver) ->
    Driver ! {stamp, erlang:monotonic_time(nanosecond)},
    case How of
        panic -> erlang:error(planted);
        error -> {stop, planted, Driver}
    end.

handle_info(_, Driver) ->
    {noreply, Driver}.

terminate(_, _) ->
    ok.
