-- Puts the nodes that a node knows of back, after Redis has lost everything.
-- KEYS: nodes, beats, run, number. ARGV: a random text for the run that begins, the highest number that was given, then
-- each node's number and name.
local run = redis.call('GET', KEYS[3])
if not run then
  run = ARGV[1]
  redis.call('SET', KEYS[3], run)
end
if tonumber(redis.call('GET', KEYS[4]) or 0) < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[4], ARGV[2])
end
for i = 3, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('HSETNX', KEYS[2], ARGV[i], 0)
  end
end
return run
